/* SPDX-License-Identifier: MIT */
#include "debug/escape.h"
#include "debug/screen.h"
#include "lib/string.h"

/* Text beyond that is not worth the memory: on larger screens the upper left part is used. */
#define COLS_MAX 240
#define ROWS_MAX 100
#define TAB	 8

static struct screen_mode mode;
static u32 cols, rows; /* 0: there is no screen */
static u32 col, row;   /* of the log's page */
static u32 fg, bg;
static enum screen_page shown;
static char cells[SCREEN_PAGES][ROWS_MAX][COLS_MAX];
static struct escape_filter filter;

static u32 colour(u8 r, u8 g, u8 b)
{
	return mode.bgr ? (u32)r << 16 | (u32)g << 8 | b : (u32)b << 16 | (u32)g << 8 | r;
}

static void paint(u32 x, u32 y, char c)
{
	volatile u32 *line =
		mode.base + (size_t)y * SCREEN_CELL_H * mode.stride + (size_t)x * SCREEN_CELL_W;
	const u8 *glyph = screen_font[(u8)c - SCREEN_FONT_FIRST];

	for (u32 i = 0; i < SCREEN_CELL_H; i++, line += mode.stride) {
		for (u32 bit = 0; bit < SCREEN_CELL_W; bit++)
			line[bit] = glyph[i] & (0x80u >> bit) ? fg : bg;
	}
}

static void draw(enum screen_page page, u32 x, u32 y, char c)
{
	if (cells[page][y][x] == c)
		return;
	cells[page][y][x] = c;
	if (page == shown)
		paint(x, y, c);
}

/*
 * Several lines at once: most of the screen has to be drawn anew, and at boot each line of the log
 * would pay for that. Cells that stay the same (mostly blank ones) cost a comparison.
 */
static void scroll(void)
{
	u32 by = MAX(rows / 4, 1);

	for (u32 y = 0; y < rows; y++) {
		for (u32 x = 0; x < cols; x++)
			draw(SCREEN_LOG, x, y, y + by < rows ? cells[SCREEN_LOG][y + by][x] : ' ');
	}
	row -= by;
}

static void newline(void)
{
	col = 0;
	if (++row == rows)
		scroll();
}

static void show(char c)
{
	if (col == cols)
		newline();
	draw(SCREEN_LOG, col++, row, c);
}

static void put(int c)
{
	switch (c) {
	case ESCAPE_DROP:
		break;
	case ESCAPE_ERASE_LINE:
		for (u32 x = col; x < cols; x++)
			draw(SCREEN_LOG, x, row, ' ');
		break;
	case '\b':
		col -= col > 0;
		break;
	case '\r':
		col = 0;
		break;
	case '\n':
		newline();
		break;
	case '\t':
		do
			show(' ');
		while (col % TAB && col < cols);
		break;
	default:
		show((char)c);
	}
}

void screen_write(const char *text, size_t n)
{
	for (; n && cols; n--)
		put(escape_filter(&filter, (u8)*text++));
}

void screen_show(enum screen_page page)
{
	enum screen_page before = shown;

	shown = page;
	for (u32 y = 0; y < rows; y++)
		for (u32 x = 0; x < cols; x++)
			if (cells[page][y][x] != cells[before][y][x])
				paint(x, y, cells[page][y][x]);
}

void screen_status(u32 y, const char *text, size_t n)
{
	if (y >= rows)
		return;
	for (u32 x = 0; x < cols; x++) {
		char c = x < n ? text[x] : ' ';

		draw(SCREEN_STATUS, x, y, c < ' ' || c > '~' ? '?' : c);
	}
}

u32 screen_row(u32 y, const char **text)
{
	u32 n = cols;

	if (y >= rows)
		return SCREEN_NO_ROW;
	*text = cells[shown][y];
	while (n && (*text)[n - 1] == ' ')
		n--;
	return n;
}

void screen_init(const struct screen_mode *m)
{
	cols = rows = 0;
	if (m->width < SCREEN_CELL_W || m->height < SCREEN_CELL_H || m->stride < m->width)
		return;
	mode = *m;
	fg = colour(0xd8, 0xd8, 0xc8);
	bg = colour(0x10, 0x14, 0x18);
	for (u32 y = 0; y < m->height; y++) {
		for (u32 x = 0; x < m->width; x++)
			m->base[(size_t)y * m->stride + x] = bg;
	}
	memset(cells, ' ', sizeof(cells));
	memset(&filter, 0, sizeof(filter));
	col = row = 0;
	shown = SCREEN_LOG;
	rows = MIN(m->height / SCREEN_CELL_H, ROWS_MAX);
	cols = MIN(m->width / SCREEN_CELL_W, COLS_MAX);
}
