/* SPDX-License-Identifier: MIT */
/*
 * Text on the framebuffer, for machines without a serial cable: what the log and the monitor say.
 * Never reads the framebuffer (write-combining memory reads slowly); what is on it is kept as text.
 */
#pragma once

#include "lib/types.h"

struct screen_mode {
	volatile u32 *base;	   /* mapped, write-combining */
	u32 width, height, stride; /* in pixels */
	bool bgr;		   /* blue in the lowest byte */
};

#define SCREEN_FONT_FIRST  0x20
#define SCREEN_FONT_GLYPHS 95
#define SCREEN_CELL_W	   8
#define SCREEN_CELL_H	   16
/* Made by tools/psf2c while building: a byte per row of pixels, the leftmost pixel in bit 7. */
extern const u8 screen_font[SCREEN_FONT_GLYPHS][SCREEN_CELL_H];

/*
 * Clear it and show from now on what is written; a mode too small for one line is not used. The
 * mode is copied.
 */
void screen_init(const struct screen_mode *mode);
/*
 * Show text: \b \t \r \n and "erase to the end of the line" work, other control sequences are
 * dropped. No-op before screen_init(). The caller serializes (the console's lock).
 */
void screen_write(const char *text, size_t n);
