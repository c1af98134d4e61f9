/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/serial.h"
#include "arch/x86/timer.h"
#include "debug/commands.h"
#include "debug/console.h"
#include "debug/inspect.h"
#include "debug/lineedit.h"
#include "debug/status.h"
#include "lib/string.h"
#include "virt/sched.h"

#define PROMPT "corbel> "
#define CTRL_C 3
/*
 * What a command prints at once never has to wait for the line: it begins, or goes on, when the
 * line's queue has that much room. That is looked at again after a while.
 */
#define ROOM	24576
#define LOOK_US 10000

const struct monitor_actions *monitor_actions;
static struct line line;

static bool (*unsaid)(bool go_on); /* of the command that runs */
static bool typed_runs;		   /* it is one that was typed: */
static char typed[LINE_MAX_LEN + 1];
static char waiting[512]; /* keys that came meanwhile */
static u32 nr_waiting;
static struct task task;
static struct timer look_again;

static void prompt(void)
{
	struct edit_view view;

	line_view(&line, PROMPT, &view);
	console_edit(&view);
}

static void go_on(struct task *t);

static void fire(struct timer *t)
{
	(void)t;
	task_wake(&task);
}

void monitor_init(const struct monitor_actions *actions)
{
	task_add(&task, this_cpu(cpu_id), go_on);
	timer_init(&look_again, fire);
	unsaid = NULL;
	typed_runs = false;
	monitor_actions = actions;
	commands_ipi_init();
	if (FAULTS)
		poke_init();
	inspect_init();
	memset(&line, 0, sizeof(line));
	prompt();
}

/* ---- Running a command ---- */

/*
 * Number of edits (insert, delete, replace a character) from a to b; words of at most 15
 * characters, else 99.
 */
static u32 distance(const char *a, const char *b)
{
	u32 row[16], n = (u32)strlen(b);

	if (n > 15 || strlen(a) > 15)
		return 99;
	for (u32 j = 0; j <= n; j++)
		row[j] = j;
	for (u32 i = 1; *a; a++, i++) {
		u32 diagonal = row[0];

		row[0] = i;
		for (u32 j = 1; j <= n; j++) {
			u32 replace = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(replace, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[n];
}

static void unknown(const char *name)
{
	const char *nearest = NULL;
	u32 best = MAX(strlen(name) / 2, 1) + 1;

	for (u32 i = 0; i < nr_commands; i++) {
		u32 d = distance(name, commands[i].name);

		if (d < best) {
			best = d;
			nearest = commands[i].name;
		}
	}
	if (nearest)
		monitor_printf("%s: no such command; did you mean '%s'? (see help)\n", name,
			       nearest);
	else
		monitor_printf("%s: no such command (see help)\n", name);
}

/* At most COMMAND_WORDS, a tag and -j; one more: there are too many. */
static u32 split(char *text, char **argv)
{
	u32 argc = 0;

	for (;;) {
		while (*text == ' ')
			*text++ = '\0';
		if (!*text)
			return argc;
		if (argc == COMMAND_WORDS + 2)
			return COMMAND_WORDS + 3;
		argv[argc++] = text;
		while (*text && *text != ' ')
			text++;
	}
}

static void usage(const struct command *c)
{
	monitor_printf("usage: %s%s%s\n", c->name, *c->args ? " " : "", c->args);
}

static void run(u32 argc, char **argv)
{
	const struct command *c = command_find(argv[0]);

	if (FAULTS && !strcmp(argv[0], "poke"))
		cmd_poke(argc, argv);
	else if (!c)
		unknown(argv[0]);
	else if (argc > COMMAND_WORDS || !c->run(argc, argv))
		usage(c);
}

static void begin(char *text)
{
	char *argv[COMMAND_WORDS + 2], **words = argv;
	u32 argc = split(text, argv), kept = 0;
	bool many = argc > COMMAND_WORDS + 2, json = false;
	const char *tag = NULL;

	argc -= many;
	if (argc && argv[0][0] == '@')
		tag = argv[0], words++, argc--;
	for (u32 i = 0; i < argc; i++) {
		if (strcmp(words[i], "-j"))
			words[kept++] = words[i];
		else
			json = true;
	}
	monitor_print_begin(tag, json);
	if (kept)
		run(many ? COMMAND_WORDS + 1 : kept, words);
}

void command_continue(bool (*step)(bool go_on))
{
	unsaid = step;
}

void monitor_run_for(char *text, void (*to)(const char *text, size_t n))
{
	static const char busy[] = "the monitor is busy with another command\n";

	if (typed_runs)
		return to(busy, sizeof(busy) - 1);
	monitor_print_to(to);
	begin(text);
	while (unsaid && unsaid(true))
		;
	unsaid = NULL;
	monitor_print_end();
	monitor_print_to(NULL);
}

static void end_typed(void)
{
	char keys[sizeof(waiting)];
	u32 n = nr_waiting;

	unsaid = NULL;
	monitor_print_end();
	typed_runs = false;
	prompt();
	memcpy(keys, waiting, n);
	nr_waiting = 0;
	for (u32 i = 0; i < n; i++)
		console_input((u8)keys[i]); /* the command may have attached a VM */
}

static void go_on(struct task *t)
{
	(void)t;
	while (typed_runs && serial_room() >= ROOM)
		if (!unsaid || !unsaid(true))
			end_typed();
	if (typed_runs) {
		u64 flags = irq_save();

		timer_arm(&look_again, rdtsc() + (u64)LOOK_US * tsc_khz / 1000);
		irq_restore(flags);
	}
}

static bool run_typed(bool wanted)
{
	unsaid = NULL;
	if (wanted)
		begin(typed);
	return unsaid;
}

#define ARGS_WIDTH 27 /* in the format below */

bool cmd_help(u32 argc, char **argv)
{
	const struct command *c;

	if (argc > 2)
		return false;
	if (argc == 1) {
		for (u32 i = 0; i < nr_commands; i++) {
			c = &commands[i];
			if (strlen(c->args) > ARGS_WIDTH)
				monitor_printf("%-10s %s\n%-38s %s\n", c->name, c->args, "",
					       c->help);
			else
				monitor_printf("%-10s %-27s %s\n", c->name, c->args, c->help);
		}
		return true;
	}
	c = command_find(argv[1]);
	if (!c) {
		unknown(argv[1]);
		return true;
	}
	usage(c);
	monitor_printf("%s\nexample: %s\n", c->help, c->example);
	return true;
}

/* ---- Keys ---- */

struct completion {
	char first[LINE_MAX_LEN + 1]; /* the line's first word */
	char word[LINE_MAX_LEN + 1];  /* what of the word stands before the cursor */
	u32 number, len;	      /* of the word */
};

static void find_word(struct completion *c)
{
	u32 start = line.cursor, first = 0, end;

	while (start && line.text[start - 1] != ' ')
		start--;
	c->len = line.cursor - start;
	memcpy(c->word, line.text + start, c->len);
	c->word[c->len] = '\0';
	c->number = 0;
	for (u32 i = 0; i < start; i++)
		c->number += line.text[i] != ' ' && line.text[i + 1] == ' ';
	while (line.text[first] == ' ')
		first++;
	for (end = first; line.text[end] && line.text[end] != ' '; end++)
		;
	memcpy(c->first, line.text + first, end - first);
	c->first[end - first] = '\0';
}

/* Calls for each candidate that begins with the word; i counts those. */
static u32 each_match(const struct completion *c, void (*f)(void *arg, u32 i, const char *match),
		      void *arg)
{
	char buf[LINE_MAX_LEN];
	const char *match;
	u32 found = 0;

	for (u32 i = 0; (match = command_candidate(c->first, c->number, i, buf, sizeof(buf)));
	     i++) {
		if (!strncmp(match, c->word, c->len))
			f(arg, found++, match);
	}
	return found;
}

static void shorten(void *arg, u32 i, const char *match)
{
	char *common = arg;
	u32 n = 0;

	for (; i && common[n] && common[n] == match[n]; n++)
		;
	if (!i)
		memcpy(common, match, MIN(strlen(match) + 1, LINE_MAX_LEN));
	else
		common[n] = '\0';
}

static void list_match(void *arg, u32 i, const char *match)
{
	(void)arg;
	monitor_printf("%s%s", i ? "  " : "", match);
}

static void complete(void)
{
	struct completion c;
	char common[LINE_MAX_LEN + 1] = "";
	u32 found, more;

	find_word(&c);
	found = each_match(&c, shorten, common);
	more = found ? (u32)strlen(common) - c.len : 0;
	if (more)
		line_insert(&line, common + c.len, more);
	if (found == 1)
		line_insert(&line, " ", 1);
	if (found > 1 && !more) {
		console_edit_end();
		each_match(&c, list_match, NULL);
		monitor_printf("\n");
	}
	if (!found)
		console_bell();
	prompt();
}

static void enter(bool run)
{
	memcpy(typed, line.text, sizeof(typed));
	console_edit_end();
	line_reset(&line, run);
	if (!run) {
		prompt();
		return;
	}
	typed_runs = true;
	unsaid = run_typed;
	go_on(&task);
}

static void input_meanwhile(u8 c)
{
	if (c == CTRL_C) {
		nr_waiting = 0;
		unsaid(false);
		end_typed();
	} else if (nr_waiting == sizeof(waiting)) {
		console_bell();
	} else {
		waiting[nr_waiting++] = (char)c;
	}
}

void monitor_input(u8 c)
{
	if (typed_runs) {
		input_meanwhile(c);
		return;
	}
	if (status_top_end()) {
		prompt();
		return;
	}
	switch (line_key(&line, c)) {
	case LINE_NOTHING:
		break;
	case LINE_CHANGED:
		prompt();
		break;
	case LINE_ENTER:
	case LINE_CANCEL:
		enter(c != CTRL_C);
		break;
	case LINE_COMPLETE:
		complete();
		break;
	case LINE_CLEAR:
		console_clear();
		break;
	case LINE_REFUSED:
		console_bell();
		break;
	}
}
