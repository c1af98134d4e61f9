/* SPDX-License-Identifier: MIT */
#include "debug/escape.h"
#include "debug/vmconsole.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"

#define LINE_LOOKBACK 512 /* longer "lines" are a program that redraws one line for ever */

_Static_assert(sizeof(struct vm_console) <= PAGE_SIZE, "struct vm_console outgrew its frame");

int vmconsole_create(struct vm *vm, struct uart *uart, struct vm_console **out)
{
	struct vm_console *vc = frame_alloc_zero(FRAME_HEAP, vm->id);
	pfn_t ring;

	if (!vc)
		return trace_error(-ENOMEM);
	ring = frame_alloc_order(VMCONSOLE_ORDER, FRAME_HEAP, vm->id);
	if (!pfn_valid(ring)) {
		frame_free(hpa_pfn(ptr_hpa(vc)), FRAME_HEAP, vm->id);
		return trace_error(-ENOMEM);
	}
	vc->vm = vm;
	vc->uart = uart;
	vc->output = pfn_ptr(ring);
	*out = vc;
	return 0;
}

void vmconsole_destroy(struct vm_console *vc)
{
	u16 id = vc->vm->id;

	frame_free_order(hpa_pfn(ptr_hpa(vc->output)), VMCONSOLE_ORDER, FRAME_HEAP, id);
	frame_free(hpa_pfn(ptr_hpa(vc)), FRAME_HEAP, id);
}

static u8 byte_at(const struct vm_console *vc, u64 i)
{
	return vc->output[i % VMCONSOLE_OUTPUT];
}

void vmconsole_keep(struct vm_console *vc, const u8 *bytes, size_t n)
{
	u64 at = vc->written;

	while (n--)
		vc->output[at++ % VMCONSOLE_OUTPUT] = *bytes++;
	/* Ordered before the writer's look at whether it is attached: see console.c. */
	__atomic_store_n(&vc->written, at, __ATOMIC_SEQ_CST);
}

/* First byte of the line on which byte `end` would be, at most LINE_LOOKBACK before it. */
static u64 line_start(const struct vm_console *vc, u64 end)
{
	u64 low = end - MIN(end, LINE_LOOKBACK);

	while (end > low && byte_at(vc, end - 1) != '\n')
		end--;
	return end;
}

u64 vmconsole_replay_from(const struct vm_console *vc, u64 end, u64 *skipped)
{
	u64 from = end - MIN(end, VMCONSOLE_REPLAY);

	*skipped = 0;
	if (vc->seen >= from)
		return vc->seen == end ? line_start(vc, end) : vc->seen;
	/* Begin with a whole line, and not in the middle of an escape sequence, if there is one. */
	for (u64 i = from; i < end; i++) {
		if (byte_at(vc, i) == '\n') {
			from = i + 1;
			break;
		}
	}
	*skipped = from - vc->seen;
	return from;
}

static size_t plain_line(const struct vm_console *vc, u64 from, u64 to, char *line, size_t size)
{
	struct escape_filter filter = { 0 };
	size_t n = 0, visible = 0;

	for (; from < to; from++) {
		int c = escape_filter(&filter, byte_at(vc, from));

		if (c == '\r')
			n = 0; /* what follows overwrites it */
		else if (c >= ' ' && n + 1 < size)
			line[n++] = (char)c;
		visible = c > ' ' ? n : MIN(visible, n);
	}
	line[visible] = '\0';
	return visible;
}

void vmconsole_last_line(const struct vm_console *vc, char *line, size_t size)
{
	u64 end = vmconsole_written(vc), low = end - MIN(end, VMCONSOLE_REPLAY), start;

	line[0] = '\0';
	while (end > low) {
		start = MAX(line_start(vc, end), low);
		/* The guest's "\r\n": the line's own carriage return erases nothing. */
		while (end > start && byte_at(vc, end - 1) == '\r')
			end--;
		if (plain_line(vc, start, end, line, size))
			return;
		end = start > low ? start - 1 : low;
	}
}

bool vmconsole_type(struct vm_console *vc, u8 c)
{
	if (vc->input_in - vc->input_out == VMCONSOLE_INPUT) {
		WRITE_ONCE(vc->input_lost, vc->input_lost + 1);
		return false;
	}
	vc->input[vc->input_in % VMCONSOLE_INPUT] = c;
	WRITE_ONCE(vc->input_in, vc->input_in + 1);
	return true;
}

void vmconsole_pump(struct vm_console *vc)
{
	while (vc->input_in != vc->input_out) {
		u32 at = vc->input_out % VMCONSOLE_INPUT;
		u32 n = MIN(vc->input_in - vc->input_out, VMCONSOLE_INPUT - at);
		u32 taken = (u32)uart_receive(vc->uart, vc->input + at, n);

		WRITE_ONCE(vc->input_out, vc->input_out + taken);
		if (taken < n)
			return;
	}
}
