/* SPDX-License-Identifier: MIT */
#pragma once

#define CORBEL_VERSION "0.1"
