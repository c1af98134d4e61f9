/* SPDX-License-Identifier: MIT */
/*
 * Intel extended page tables, as data for mm/stage2.c. No privileged instruction has a place here.
 */
#pragma once

#include "mm/pt_format.h"

extern const struct pt_format ept_format, ept_format_no_ad;
