/* SPDX-License-Identifier: MIT */
/* gdb manual, appendix "Remote Serial Protocol". */
#include "debug/commands.h"
#include "debug/gdb.h"
#include "debug/gdb_memory.h"
#include "debug/gdb_packet.h"
#include "debug/gdb_regs.h"
#include "debug/lineedit.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"

#define SIGINT	   2
#define SIGTRAP	   5
#define SIGWINCH   28
#define DEAD_STEPS 8	 /* of a VM that has ended: then gdb is told */
#define OUTPUT_MAX 16384 /* of a monitor command: the line's queue holds that much */

/* What gdb knows: all attached vCPUs are stopped, or some run. */
enum gdb_state { GDB_STOPPED, GDB_RUNNING, GDB_STOPPING };

static struct {
	struct gdb_link link;
	u8 state;	/* enum gdb_state */
	bool ready;	/* there is a line */
	bool reply_due; /* gdb waits for the reason of the stop */
	bool forget;	/* breakpoints are those of a gdb that is gone */
	bool interrupted;
	bool stepped; /* it was resumed for a step */
	u8 dead_steps;
	u16 vm;	    /* what commands are about: a VM's id ... */
	u32 index;  /* ... and its vCPU */
	u64 output; /* of the monitor command, so far */
	char chosen[VM_NAME_MAX];
} gdb;

#define say(...) gdb_putf(&gdb.link, __VA_ARGS__)

static void reply(const char *text)
{
	gdb_reply(&gdb.link, text);
}

static void reply_error(int err)
{
	if (err == -EOPNOTSUPP) /* gdb tries something else */
		reply("");
	else
		reply(!err ? "OK" : err == -EFAULT ? "E14" : err == -ENOSPC ? "E28" : "E22");
}

/* ---- VMs and threads ---- */

static struct vm *attached(u32 i)
{
	struct vm *vm;

	for (u32 n = 0; (vm = command_nth_vm(n)); n++)
		if (debug_attached(vm) && !i--)
			return vm;
	return NULL;
}

/* The vCPUs of all attached VMs, as one list. */
static struct vcpu *thread(u32 i)
{
	struct vm *vm;

	for (u32 n = 0; (vm = attached(n)); i -= vm->nr_vcpus, n++)
		if (i < vm->nr_vcpus)
			return vm->vcpus[i];
	return NULL;
}

#define for_each_attached(vm) for (u32 i_ = 0; (vm = attached(i_)); i_++)
#define for_each_thread(v)    for (u32 i_ = 0; (v = thread(i_)); i_++)

static struct vm *vm_by_id(u64 id)
{
	struct vm *vm;

	for (u32 n = 0; (vm = command_nth_vm(n)); n++)
		if (vm->id == id)
			return vm;
	return NULL;
}

/* The vCPU that commands are about; NULL: nothing is attached. */
static struct vcpu *selected(void)
{
	struct vm *vm = vm_by_id(gdb.vm);

	if (!vm || !debug_attached(vm))
		vm = attached(0);
	if (!vm)
		return NULL;
	return vm->vcpus[vm->id == gdb.vm && gdb.index < vm->nr_vcpus ? gdb.index : 0];
}

static void select(const struct vcpu *v)
{
	gdb.vm = v->vm->id;
	gdb.index = v->index;
}

/* A thread id: "pPID.TID" or "TID", hexadecimal; -1: all, 0: any. */
struct thread_id {
	s64 pid, tid;
};

static bool get_id(const char **s, s64 *id)
{
	u64 value;

	if (!strncmp(*s, "-1", 2)) {
		*s += 2;
		*id = -1;
		return true;
	}
	if (!gdb_get_number(s, &value) || value > 0xffffffff)
		return false;
	*id = (s64)value;
	return true;
}

static bool get_thread(const char **s, struct thread_id *t)
{
	*t = (struct thread_id){ -1, -1 };
	if (**s != 'p')
		return get_id(s, &t->tid);
	++*s;
	if (!get_id(s, &t->pid))
		return false;
	if (**s != '.')
		return true;
	++*s;
	return get_id(s, &t->tid);
}

static bool is_among(const struct vcpu *v, const struct thread_id *t)
{
	return (t->pid <= 0 || t->pid == v->vm->id) && (t->tid <= 0 || t->tid == v->index + 1);
}

/* The one that commands are about if it is among them, else the first of them. */
static struct vcpu *thread_of(const struct thread_id *t)
{
	struct vcpu *v = selected();

	if (v && is_among(v, t))
		return v;
	for_each_thread(v)
		if (is_among(v, t))
			return v;
	return NULL;
}

/* Of a VM's id, and a vCPU's index + 1. */
#define THREAD "p%x.%x"

/* ---- Stopping ---- */

static void hold_all(void)
{
	struct vm *vm;

	for_each_attached(vm)
		debug_hold(vm);
	gdb.state = GDB_STOPPING;
}

static bool attach(struct vm *vm)
{
	if (debug_attach(vm))
		return false;
	select(vm->vcpus[0]);
	hold_all();
	gdb.reply_due = true;
	return true;
}

/* The first VM that a gdb gets to see. */
static struct vm *first_vm(void)
{
	struct vm *vm = vm_find(gdb.chosen), *first = command_nth_vm(0);

	for (u32 i = 0; !vm && (vm = command_nth_vm(i)) && vm->state != VM_RUNNING; i++)
		vm = NULL;
	return vm ? vm : first;
}

static struct vm *ended_vm(void)
{
	struct vm *vm;

	for_each_attached(vm)
		if (debug_has_ended(vm))
			return vm;
	return NULL;
}

/* A vCPU that holds by itself; the selected one if it does. */
static struct vcpu *stopped_vcpu(void)
{
	struct vcpu *v = selected();

	if (v && v->debug.stop)
		return v;
	for_each_thread(v)
		if (READ_ONCE(v->debug.stop))
			return v;
	return NULL;
}

static void put_reg(struct vcpu *v, u32 n)
{
	u8 value[GDB_REG_MAX];

	gdb_hex(&gdb.link, value, gdb_reg_read(v, n, value));
}

/* Three registers spare gdb a packet for each step. */
static void report_stop(struct vcpu *v, u8 signal)
{
	static const char *const names[] = { "swbreak", "hwbreak", "watch", "rwatch", "awatch" };
	static const u8 regs[] = { GDB_RBP, GDB_RSP, GDB_RIP };
	u32 type = v->debug.stop - DEBUG_BREAK;

	select(v);
	gdb_begin(&gdb.link);
	say("T%02xthread:" THREAD ";", signal, v->vm->id, v->index + 1);
	if (v->debug.stop >= DEBUG_BREAK)
		say("%s:", names[type]);
	if (v->debug.stop >= DEBUG_BREAK + BREAK_WRITE)
		say("%lx", v->debug.address);
	if (v->debug.stop >= DEBUG_BREAK)
		say(";");
	v->debug.stop = DEBUG_NONE;
	if (debug_begin(v)) {
		for (u32 i = 0; i < ARRAY_SIZE(regs); i++) {
			say("%x:", regs[i]);
			put_reg(v, regs[i]);
			say(";");
		}
		debug_end(v);
	}
	gdb_send(&gdb.link);
}

static void release(struct vm *vm)
{
	gdb_break_clear_all(vm);
	debug_detach(vm);
}

static void say_end(u32 id, bool good)
{
	gdb_begin(&gdb.link);
	say("%s;process:%x", good ? "W00" : "X06", id); /* killed by SIGABRT */
	gdb_send(&gdb.link);
}

/* A VM that has ended, or has begun anew, is no process of gdb's any more. */
static void report_end(struct vm *vm)
{
	bool good = stop_reason_good(vm->stop_reason) || vm->state == VM_RUNNING;

	gdb.dead_steps = 0;
	release(vm);
	say_end(vm->id, good);
}

/*
 * The end is no answer to a step: gdb 13 still believes, then, that it steps over a breakpoint, and
 * dies when it attaches again. A stop by a signal that it does not mind is, and the end comes when
 * it goes on.
 */
static void report_end_or_stop(struct vm *vm)
{
	struct vcpu *v = selected();

	if (!gdb.stepped || gdb.dead_steps++ == DEAD_STEPS)
		report_end(vm);
	else
		report_stop(v && v->vm == vm ? v : vm->vcpus[0], SIGWINCH);
}

static void all_at_rest(void)
{
	struct vcpu *v;
	struct vm *vm;

	if (gdb.forget)
		for_each_attached(vm)
			gdb_break_clear_all(vm);
	gdb.forget = false;
	gdb.state = GDB_STOPPED;
	if (!gdb.reply_due)
		return;
	gdb.reply_due = false;
	vm = ended_vm();
	v = stopped_vcpu();
	if (vm)
		report_end_or_stop(vm);
	else if (v)
		report_stop(v, SIGTRAP);
	else if (selected())
		report_stop(selected(), gdb.interrupted ? SIGINT : SIGTRAP);
	else
		reply("W00");
	gdb.interrupted = false;
}

void gdb_poll(void)
{
	struct vm *vm;

	if (gdb.state == GDB_RUNNING && (ended_vm() || stopped_vcpu()))
		hold_all();
	if (gdb.state != GDB_STOPPING)
		return;
	for_each_attached(vm)
		if (!debug_at_rest(vm))
			return;
	all_at_rest();
}

/* ---- Running ---- */

/* What happens to a vCPU: the first action that names it; 'c', 's' or 0. */
static char action_of(const struct vcpu *v, const char *s)
{
	while (*s == ';') {
		struct thread_id t = { -1, -1 };
		char what = s[1];

		if (!what)
			return 0;
		s += 2;
		while (gdb_digit((u8)*s) >= 0) /* the signal of C and S: guests have none */
			s++;
		if (*s == ':') {
			s++;
			if (!get_thread(&s, &t))
				return 0;
		}
		what |= 0x20; /* with a signal or without */
		if (is_among(v, &t))
			return what == 'c' || what == 's' ? what : 0;
	}
	return 0;
}

/*
 * Stops of others than the one that was reported. A breakpoint is met again; data that was touched,
 * or a step, would be lost: those are reported instead of running.
 */
static bool unreported(void)
{
	struct vcpu *v;

	for_each_thread(v)
		if (v->debug.stop == DEBUG_BREAK + BREAK_SOFT ||
		    v->debug.stop == DEBUG_BREAK + BREAK_HARD)
			v->debug.stop = DEBUG_NONE;
	return stopped_vcpu();
}

/* actions: ";c", ";s:p1.1;c:p1.-1", as in vCont. */
static void resume(const char *actions)
{
	bool any = false;
	struct vcpu *v;

	gdb.stepped = false;
	for_each_thread(v) {
		any |= action_of(v, actions) != 0;
		if (action_of(v, actions) == 's')
			select(v), gdb.stepped = true;
	}
	if (!any && !vm_by_id(gdb.vm))
		return say_end(gdb.vm, true); /* it was destroyed */
	if (!any)
		return reply("E22");
	for_each_thread(v)
		if (v->vm->state != VM_RUNNING && action_of(v, actions))
			return report_end_or_stop(v->vm);
	gdb.reply_due = true;
	gdb.state = GDB_RUNNING;
	if (unreported())
		return hold_all();
	for_each_thread(v)
		if (action_of(v, actions))
			debug_resume(v, action_of(v, actions) == 's');
}

static void detach(const char *id)
{
	struct vm *vm;
	u64 pid = 0;

	if (*id == ';' && (id++, !gdb_get_number(&id, &pid))) {
		reply("E22");
		return;
	}
	for_each_attached(vm)
		if (!pid || vm->id == pid) {
			release(vm);
			i_--;
		}
	reply("OK");
}

/* ---- Registers and memory ---- */

static void read_registers(struct vcpu *v)
{
	gdb_begin(&gdb.link);
	for (u32 n = 0; n < GDB_G_REGS; n++)
		put_reg(v, n);
	gdb_send(&gdb.link);
}

static void read_register(struct vcpu *v, const char *s)
{
	u64 n;

	if (!gdb_get_number(&s, &n) || n >= GDB_REGS) {
		reply("E22");
		return;
	}
	gdb_begin(&gdb.link);
	put_reg(v, (u32)n);
	gdb_send(&gdb.link);
}

static int write_register(struct vcpu *v, const char *s)
{
	u8 value[GDB_REG_MAX] = { 0 };
	u64 n;

	if (!gdb_get_number(&s, &n) || *s++ != '=' || n >= GDB_REGS)
		return -EINVAL;
	return gdb_reg_write(v, (u32)n, value, gdb_get_hex(s, value, sizeof(value)));
}

/* What memory is read to, and written from. */
static u8 buf[GDB_PACKET / 2];

static void read_memory(struct vcpu *v, const char *s)
{
	u64 address, len;
	size_t n;

	if (!gdb_get_range(&s, &address, &len)) {
		reply("E22");
		return;
	}
	n = gdb_memory_read(v, address, buf, MIN(len, sizeof(buf)));
	if (len && !n) {
		reply("E14");
		return;
	}
	gdb_begin(&gdb.link);
	gdb_hex(&gdb.link, buf, n);
	gdb_send(&gdb.link);
}

static int write_memory(struct vcpu *v, const char *s, bool binary)
{
	const u8 *end = gdb.link.in + gdb.link.in_len;
	u64 address, len;

	if (!gdb_get_range(&s, &address, &len) || *s++ != ':')
		return -EINVAL;
	if (binary ? len != (u64)(end - (const u8 *)s)
		   : len > GDB_PACKET / 2 || gdb_get_hex(s, buf, (size_t)len) != len)
		return -EINVAL;
	return gdb_memory_write(v, address, binary ? s : (const char *)buf, (size_t)len);
}

static int change_break(struct vcpu *v, const char *s, bool set)
{
	u64 type, address, len;

	if (!gdb_get_number(&s, &type) || *s++ != ',' || !gdb_get_range(&s, &address, &len))
		return -EINVAL;
	if (type > BREAK_ACCESS)
		return -EOPNOTSUPP;
	if (set)
		return gdb_break_set(v, (enum debug_break)type, address, len);
	gdb_break_clear(v, (enum debug_break)type, address);
	return 0;
}

/* ---- Queries ---- */

static void describe_threads(struct gdb_doc *d)
{
	static const char *const names[] = { [VCPU_ACTIVE] = "active",
					     [VCPU_IN_HLT] = "in HLT",
					     [VCPU_WAIT_SIPI] = "waits for SIPI",
					     [VCPU_DELAYED] = "split lock" };
	char text[VM_NAME_MAX + 80];
	struct vcpu *v;

	gdb_doc(d, "<threads>");
	for_each_thread(v) {
		u32 activity = READ_ONCE(v->activity);
		const char *does =
			activity & VCPU_WAITS_MEMORY ? "waits for memory" : names[activity];

		fmt_snprintf(text, sizeof(text),
			     "<thread id=\"" THREAD "\" name=\"%s/%u\">%s</thread>", v->vm->id,
			     v->index + 1, v->vm->name, v->index,
			     v->vm->state == VM_RUNNING ? does : "not running");
		gdb_doc(d, text);
	}
	gdb_doc(d, "</threads>");
}

/* A line of a monitor command. */
static void monitor_output(const char *text, size_t n)
{
	if (gdb.output + n > OUTPUT_MAX)
		return;
	gdb.output += n;
	gdb_begin(&gdb.link);
	say("O");
	gdb_hex(&gdb.link, text, n);
	gdb_send(&gdb.link);
}

static void monitor_command(const char *s)
{
	static const char cut[] = "(more is only in Corbel's own monitor)\n";
	char line[LINE_MAX_LEN + 1] = "help";
	size_t n = gdb_get_hex(s, line, sizeof(line) - 1);

	if (strlen(s) != 2 * n) {
		reply("E22");
		return;
	}
	if (n)
		line[n] = '\0';
	gdb.output = 0;
	monitor_run_for(line, monitor_output);
	if (gdb.output > OUTPUT_MAX - MONITOR_LINE) {
		gdb.output = 0;
		monitor_output(cut, sizeof(cut) - 1);
	}
	reply("OK");
}

/* A gdb begins to talk; what another one, which is gone, has set is forgotten at the next stop. */
static void hello(const char *s)
{
	(void)s;
	gdb.reply_due = gdb.interrupted = false;
	gdb.forget = true;
	hold_all();
	reply("PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
	      "vContSupported+;swbreak+;hwbreak+;multiprocess+");
}

_Static_assert(GDB_PACKET == 0x1000, "hello() says so");

static void reason(void)
{
	struct vm *vm = first_vm();

	if (selected()) {
		gdb.reply_due = true;
		hold_all();
	} else if (!vm) {
		reply("W00");
	} else if (!attach(vm)) {
		reply("E22");
	}
}

static void attach_id(const char *s)
{
	u64 id;
	struct vm *vm = gdb_get_number(&s, &id) ? vm_by_id(id) : NULL;

	if (!vm || !attach(vm))
		reply("E22");
}

static void kill(const char *s)
{
	u64 id;
	struct vm *vm = gdb_get_number(&s, &id) ? vm_by_id(id) : NULL;

	if (!vm || !debug_attached(vm))
		return reply("E22");
	release(vm);
	vm_stop(vm, STOP_OPERATOR, "killed from gdb");
	reply("OK");
}

/* Is there such a thread? */
static struct vcpu *find_thread(const char *s)
{
	struct thread_id t;
	struct vcpu *v = get_thread(&s, &t) && !*s ? thread_of(&t) : NULL;

	reply(v ? "OK" : "E22");
	return v;
}

static void thread_alive(const char *s)
{
	(void)find_thread(s);
}

static void choose_thread(const char *s)
{
	struct vcpu *v = find_thread(s);

	if (v)
		select(v);
}

static void current_thread(const char *s)
{
	struct vcpu *v = selected();

	(void)s;
	gdb_begin(&gdb.link);
	if (v)
		say("QC" THREAD, v->vm->id, v->index + 1);
	gdb_send(&gdb.link);
}

static void no_ack(const char *s)
{
	(void)s;
	reply("OK");
	gdb_link_no_acks(&gdb.link);
}

static void read_features(const char *s)
{
	gdb_doc_reply(&gdb.link, s, gdb_describe);
}

static void read_threads(const char *s)
{
	gdb_doc_reply(&gdb.link, s, describe_threads);
}

/* Packets with a name; what follows it is the argument. */
static const struct {
	const char *name;
	void (*run)(const char *s);
	const char *reply; /* without run */
} named[] = {
	{ "!", NULL, "OK" }, /* extended mode */
	{ "D", detach, NULL },
	{ "Hc", thread_alive, NULL }, /* vCont says what runs */
	{ "Hg", choose_thread, NULL },
	{ "QStartNoAckMode", no_ack, NULL },
	{ "T", thread_alive, NULL },
	{ "qAttached", NULL, "1" },
	{ "qRcmd,", monitor_command, NULL },
	{ "qXfer:features:read:target.xml:", read_features, NULL },
	{ "qXfer:threads:read::", read_threads, NULL },
	{ "vAttach;", attach_id, NULL },
	{ "vCont?", NULL, "vCont;c;C;s;S" },
	{ "vCont", resume, NULL },
	{ "vKill;", kill, NULL },
	{ "qC", current_thread, NULL }, /* behind longer names */
};

static void named_packet(const char *s)
{
	for (u32 i = 0; i < ARRAY_SIZE(named); i++) {
		size_t n = strlen(named[i].name);

		if (!strncmp(s, named[i].name, n))
			return named[i].run ? named[i].run(s + n) : reply(named[i].reply);
	}
	reply("");
}

/* What needs a vCPU at rest. */
static void vcpu_packet(struct vcpu *v, char what, const char *s)
{
	switch (what) {
	case 'g':
		return read_registers(v);
	case 'p':
		return read_register(v, s);
	case 'P':
		return reply_error(write_register(v, s));
	case 'm':
		return read_memory(v, s);
	case 'M':
	case 'X':
		return reply_error(write_memory(v, s, what == 'X'));
	default:
		return reply_error(change_break(v, s, what == 'Z'));
	}
}

static void other_packet(const char *s)
{
	struct vcpu *v = selected();

	if (!*s || !strchr("gpPmMXZz", *s))
		return named_packet(s);
	if (!v || !debug_begin(v))
		return reply("E22");
	vcpu_packet(v, *s, s + 1);
	debug_end(v);
}

static void packet(void)
{
	const char *s = (const char *)gdb.link.in;

	if (!strncmp(s, "qSupported", 10))
		hello(s);
	else if (!strcmp(s, "?"))
		reason();
	else if (gdb.state == GDB_STOPPED)
		other_packet(s);
	/* Others wait for the stop, as gdb does; unless the line has lost what it waited for. */
}

void gdb_input(u8 c)
{
	switch (gdb_link_byte(&gdb.link, c)) {
	case GDB_PACKET_IN:
		packet();
		break;
	case GDB_TOO_LONG:
		reply("E22");
		break;
	case GDB_INTERRUPT:
		if (gdb.state != GDB_RUNNING)
			break;
		gdb.interrupted = true;
		hold_all();
		break;
	case GDB_NOTHING:
		break;
	}
}

void gdb_init(void (*write)(const char *bytes, size_t n))
{
	memset(&gdb, 0, sizeof(gdb));
	gdb_link_init(&gdb.link, write);
	gdb.ready = true;
}

bool cmd_gdb(u32 argc, char **argv)
{
	static const char *const names[] = { "stopped", "running", "stopping" };
	struct vm *vm;

	if (argc > 2)
		return false;
	vm = argc == 2 ? command_vm(argv[0], argv[1]) : NULL;
	if (vm)
		memcpy(gdb.chosen, vm->name, VM_NAME_MAX);
	else if (argc == 2)
		return true;
	vm = first_vm();
	monitor_printf("gdb=%s next=%s", gdb.ready ? "on" : "off", vm ? vm->name : "-");
	for_each_attached(vm)
		monitor_printf(" attached=%s state=%s", vm->name, names[gdb.state]);
	monitor_printf("\n");
	return true;
}
