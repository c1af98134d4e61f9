/* SPDX-License-Identifier: MIT */
/* Unpacking of the LZ4 block format (its "LZ4 Block Format Description", by Y. Collet). */
#pragma once

#include "lib/types.h"

/*
 * Unpack src, a whole block, to exactly dst_size bytes. NULL, or what is wrong with the block, of
 * whose contents nothing is believed: no byte outside of src is read, none outside of dst written.
 * Before an error is found dst may have been written.
 *
 * Context: any.
 */
const char *lz4_unpack(const void *src, u64 src_size, void *dst, u64 dst_size);
