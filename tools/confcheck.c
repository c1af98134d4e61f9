/* SPDX-License-Identifier: MIT */
/*
 * confcheck CONF: read a configuration with the very parser that Corbel uses.
 *
 * Errors go to standard error and make the exit status 1. The files that the VMs need go to
 * standard output, each once, as "LINE KEY NAME"; mkusb copies them into the image.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "boot/config.h"

#define TEXT_MAX (1024 * 1024)

static struct config config;
static char text[TEXT_MAX + 1];

static void print_error(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "%s\n", line);
}

/* Length of the file's text, or -1, reported. */
static long read_text(const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t length;
	int failed;

	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	length = fread(text, 1, sizeof(text), file);
	failed = ferror(file);
	fclose(file);
	if (failed || length > TEXT_MAX) {
		fprintf(stderr, "%s: %s\n", path,
			failed ? "cannot be read" : "is larger than 1 MiB");
		return -1;
	}
	return (long)length;
}

int main(int argc, char **argv)
{
	struct config_sink sink = { .report = print_error };
	struct config_file file;
	u32 pos = 0;
	long length;

	if (argc != 2) {
		fprintf(stderr, "usage: confcheck CONF\n");
		return 2;
	}
	length = read_text(argv[1]);
	if (length < 0)
		return 1;
	sink.file = argv[1];
	config_parse(&config, text, (size_t)length, &sink);
	while (config_next_file(&config, &pos, &file)) {
		if (!file.again)
			printf("%u %s %s\n", file.line, file.key, file.name);
	}
	return config.errors ? 1 : 0;
}
