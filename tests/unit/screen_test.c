/* SPDX-License-Identifier: MIT */
/*
 * debug/screen.c on a framebuffer in memory. CORBEL_TEST_PPM=FILE keeps a picture of the last test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "debug/screen.h"

#define COLS   40
#define ROWS   8
#define WIDTH  (COLS * SCREEN_CELL_W + 5)
#define HEIGHT (ROWS * SCREEN_CELL_H + 7)
#define STRIDE (WIDTH + 11)
#define GUARD  0xdeadbeef

static u32 *pixels;
static size_t nr_pixels;

static void open_screen(u32 width, u32 height, u32 stride, bool bgr)
{
	struct screen_mode mode = {
		.width = width, .height = height, .stride = stride, .bgr = bgr
	};

	/* ASan sees what is drawn outside; the guard value what is drawn between the lines. */
	free(pixels);
	nr_pixels = (size_t)stride * (height - 1) + width;
	pixels = malloc(nr_pixels * sizeof(u32));
	for (size_t i = 0; i < nr_pixels; i++)
		pixels[i] = GUARD;
	mode.base = pixels;
	screen_init(&mode);
}

static void write_text(const char *text)
{
	screen_write(text, strlen(text));
}

/* The background is what a blank corner of the screen has: no cell reaches it. */
static bool cell_is(u32 stride, u32 x, u32 y, char c)
{
	u32 bg = pixels[nr_pixels - 1];

	for (u32 i = 0; i < SCREEN_CELL_H; i++) {
		for (u32 bit = 0; bit < SCREEN_CELL_W; bit++) {
			u32 pixel =
				pixels[(y * SCREEN_CELL_H + i) * stride + x * SCREEN_CELL_W + bit];
			bool lit = screen_font[c - SCREEN_FONT_FIRST][i] & (0x80 >> bit);

			if ((pixel != bg) != lit || pixel == GUARD)
				return false;
		}
	}
	return true;
}

static void expect_row(u32 y, const char *text)
{
	for (u32 x = 0; x < COLS; x++) {
		char c = x < strlen(text) ? text[x] : ' ';

		if (!cell_is(STRIDE, x, y, c))
			fail_msg("row %u, column %u: not '%c'", y, x, c);
	}
}

static int setup(void **state)
{
	(void)state;
	open_screen(WIDTH, HEIGHT, STRIDE, false);
	return 0;
}

static void glyphs_are_there(void **state)
{
	static const u8 blank[SCREEN_CELL_H];

	(void)state;
	assert_memory_equal(screen_font[0], blank, SCREEN_CELL_H);
	for (u32 i = 1; i < SCREEN_FONT_GLYPHS; i++) {
		assert_memory_not_equal(screen_font[i], blank, SCREEN_CELL_H);
		assert_memory_not_equal(screen_font[i], screen_font[i - 1], SCREEN_CELL_H);
	}
}

static void text_and_controls(void **state)
{
	(void)state;
	write_text("Hello\r\nJ\tx\r\nabcdef\b\b\x1b[K|\rA\r\n");
	expect_row(0, "Hello");
	expect_row(1, "J       x");
	expect_row(2, "Abcd|");
	expect_row(3, "");
	write_text("a\x1b[31;1mb\x1b[2Jc\x1b]0;title\x07"
		   "d\xc3\xa9");
	expect_row(3, "abcd?");
	write_text("\b\b\b\b\b\b\b\b\b\bX");
	expect_row(3, "Xbcd?");
}

static void guard_is_intact(void **state)
{
	(void)state;
	for (u32 y = 0; y + 1 < HEIGHT; y++) {
		for (u32 x = WIDTH; x < STRIDE; x++)
			assert_int_equal(pixels[y * STRIDE + x], GUARD);
	}
}

static void wraps_and_scrolls(void **state)
{
	char text[64];

	for (u32 i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "line %u\r\n", i);
		write_text(text);
	}
	/*
	 * It scrolls by a quarter: the last lines stand in order above the cursor, wherever that
	 * is.
	 */
	for (u32 y = 0; y < ROWS; y++) {
		if (cell_is(STRIDE, 0, y, ' '))
			break;
		snprintf(text, sizeof(text), "line %u", y + (ROWS == 8 ? 94 : 0));
		expect_row(y, text);
	}
	write_text("\r0123456789012345678901234567890123456789wrapped");
	guard_is_intact(state);
}

static void wrapping(void **state)
{
	(void)state;
	write_text("0123456789012345678901234567890123456789");
	expect_row(0, "0123456789012345678901234567890123456789");
	write_text("wrapped\x1b[K");
	expect_row(1, "wrapped");
	write_text("\r\n12345678901234567890123456789012345678\t|");
	expect_row(2, "12345678901234567890123456789012345678");
	expect_row(3, "|");
}

static void colours(void **state)
{
	u32 rgb;

	(void)state;
	rgb = pixels[0];
	open_screen(WIDTH, HEIGHT, STRIDE, true);
	assert_int_equal(rgb & 0xff, pixels[0] >> 16);
	assert_int_equal(rgb >> 16, pixels[0] & 0xff);
	assert_int_not_equal(rgb, pixels[0]);
}

static void pages(void **state)
{
	const char *text;

	(void)state;
	write_text("the log\r\n");
	screen_status(1, "a status row that is longer than the screen has columns", 55);
	screen_status(2, "x\x01\xff", 3);
	screen_status(ROWS, "beyond", 6);
	expect_row(0, "the log");
	expect_row(1, "");
	screen_show(SCREEN_STATUS);
	expect_row(0, "");
	expect_row(1, "a status row that is longer than the screen has columns");
	expect_row(2, "x??");
	assert_int_equal(screen_row(1, &text), COLS);
	assert_int_equal(screen_row(2, &text), 3);
	assert_memory_equal(text, "x??", 3);
	assert_int_equal(screen_row(ROWS, &text), SCREEN_NO_ROW);

	/* what is written meanwhile waits behind it, scrolling included */
	for (u32 i = 0; i < ROWS; i++)
		write_text("more\r\n");
	write_text("now\r\n");
	screen_status(1, "new", 3);
	expect_row(1, "new");
	expect_row(2, "x??");
	screen_show(SCREEN_LOG);
	expect_row(0, "more");
	expect_row(ROWS - 3, "now");
	expect_row(ROWS - 2, "");
	guard_is_intact(state);
}

static void odd_sizes(void **state)
{
	static const u32 sizes[][3] = {
		{ 8, 16, 8 }, { 9, 17, 9 }, { 7, 16, 7 }, { 8, 15, 8 }, { 2600, 1800, 2600 }
	};

	(void)state;
	for (u32 i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		open_screen(sizes[i][0], sizes[i][1], sizes[i][2], true);
		for (u32 n = 0; n < 200; n++)
			write_text("some text\twith tabs\r\n and \x1b[K more, "
				   "long enough to wrap here and there");
	}
	open_screen(8, 16, 8, true);
	write_text("\r\n\tx");
	free(pixels);
	pixels = NULL;
	screen_init(&(struct screen_mode){ 0 });
	write_text("nothing happens");
}

static void write_ppm(const char *path, u32 width, u32 height)
{
	FILE *f = fopen(path, "wb");

	if (!f)
		return;
	fprintf(f, "P6 %u %u 255\n", width, height);
	for (u32 i = 0; i < width * height; i++) {
		fputc(pixels[i] >> 16 & 0xff, f);
		fputc(pixels[i] >> 8 & 0xff, f);
		fputc(pixels[i] & 0xff, f);
	}
	fclose(f);
}

static void picture(void **state)
{
	const char *path = getenv("CORBEL_TEST_PPM");
	char all[SCREEN_FONT_GLYPHS + 1];

	(void)state;
	open_screen(640, 480, 640, true);
	for (u32 i = 0; i < SCREEN_FONT_GLYPHS; i++)
		all[i] = (char)(SCREEN_FONT_FIRST + i);
	all[SCREEN_FONT_GLYPHS] = '\0';
	for (u32 i = 0; i < 40; i++)
		write_text("[    0.001234 0 I] corbel: the log, one line after the other\r\n");
	write_text(all);
	write_text("\r\ncorbel> vms");
	assert_true(cell_is(640, 0, 1, '[') || cell_is(640, 0, 0, '['));
	if (path)
		write_ppm(path, 640, 480);
}

static int teardown(void **state)
{
	(void)state;
	free(pixels);
	pixels = NULL;
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(glyphs_are_there),
		TEST(text_and_controls),
		TEST(wrapping),
		TEST(wraps_and_scrolls),
		TEST(guard_is_intact),
		TEST(colours),
		TEST(pages),
		TEST(odd_sizes),
		TEST(picture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
