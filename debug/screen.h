/* SPDX-License-Identifier: MIT */
/*
 * Text on the framebuffer, for machines without a serial cable, on two pages of which one is shown:
 * what the log and the monitor say, and a status that is written anew again and again
 * (debug/status.h). Never reads the framebuffer (write-combining memory reads slowly); what is on
 * it is kept as text.
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

enum screen_page { SCREEN_LOG, SCREEN_STATUS, SCREEN_PAGES };

/*
 * Clear it and show from now on what is written; a mode too small for one line is not used. The
 * mode is copied.
 */
void screen_init(const struct screen_mode *mode);
/*
 * Text for the log's page: \b \t \r \n and "erase to the end of the line" work, other control
 * sequences are dropped. No-op before screen_init(). The caller serializes (the console's lock).
 */
void screen_write(const char *text, size_t n);

/* Show that page. What is written to the other one is kept. The caller serializes, as below. */
void screen_show(enum screen_page page);
/* Make row y of the status page that text, cut where the screen ends. No-op beyond the last row. */
void screen_status(u32 y, const char *text, size_t n);
/*
 * Row y of the page that is shown: its length without blanks at its end. SCREEN_NO_ROW: the screen
 * has no such row. *text is valid until the next call of another function.
 */
#define SCREEN_NO_ROW 0xffffffffu
u32 screen_row(u32 y, const char **text);
