/* SPDX-License-Identifier: MIT */
#pragma once

#include "virt/ops.h"

extern const struct virt_ops vmx_ops;
