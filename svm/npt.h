/* SPDX-License-Identifier: MIT */
/* AMD nested page tables, as data for mm/stage2.c. Privileged instructions have no place here. */
#pragma once

#include "mm/pt_format.h"

extern const struct pt_format npt_format;
