/* SPDX-License-Identifier: MIT */
/* The XXH64 checksum ("xxHash fast digest algorithm", version 0.1.1): against accidents, not
 * against malice. */
#pragma once

#include "lib/types.h"

/* Context: any. */
u64 xxh64(const void *data, u64 size, u64 seed);
