/* SPDX-License-Identifier: MIT */
/*
 * Hostile bytes on gdb's line, while guests run or after a crash. The first byte of each piece says
 * how it comes: raw, or as the payload of a good packet; and whether a vCPU stops, or the VM ends,
 * after it. What is sent is whole packets, and after a detach no trace of a debugger is left in the
 * guest.
 */
#include <stdlib.h>
#include <string.h>

#include "debug/postmortem.h"
#include "tests/unit/gdb_fake.h"
#include "virt/guestmem.h"

#define MEMORY (16 * MIB)

static void check_sent(void)
{
	(void)gdb_last(); /* aborts on a malformed one */
	gdb_sent_len = 0;
	gdb_sent[0] = '\0';
}

static void happen(u8 what)
{
	struct vcpu *v = what & 1 ? &gdb_second.v : &fake_vcpu.v;

	if (what & 2 && fake_vm.state == VM_RUNNING && !v->debug.hold && debug_attached(&fake_vm)) {
		v->debug.stop = (u8)(what >> 4) % (DEBUG_BREAK + BREAK_ACCESS + 1);
		v->debug.hold = true;
	}
	if (what & 4)
		gdb_lazy = !gdb_lazy;
	if ((what & 0xf8) == 0x88) {
		fake_vm.state = fake_vm.state == VM_RUNNING ? VM_STOPPED : VM_RUNNING;
		fake_vm.starts += fake_vm.state == VM_RUNNING;
	}
	gdb_rest();
	gdb_poll();
}

static void check_clean(void)
{
	static const char hello[] = "qSupported:multiprocess+";

	gdb_lazy = false;
	gdb_type("\x03", 1);
	gdb_say(hello, sizeof(hello) - 1);
	gdb_say("?", 1);
	gdb_say("D", 1);
	if (debug_attached(&fake_vm) || debug_attached(&gdb_other))
		abort();
	for (u32 i = 0; i < fake_vm.nr_vcpus; i++)
		if (fake_vm.vcpus[i]->debug.hold || fake_vm.vcpus[i]->want_step & STEP_DEBUG)
			abort();
	if (fake_vm.debug && (fake_vm.debug->nr_soft || fake_vm.debug->hard[0].len))
		abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const char hello[] = "qSupported:multiprocess+";

	static const struct trap_frame frame;

	gdb_fake_open();
	postmortem_frames[2] = &frame;
	gdb_crashed = size && *data == 0xff;
	gdb_say(hello, sizeof(hello) - 1);
	gdb_say("?", 1);
	while (size > 2) {
		size_t n = MIN(data[1], size - 2);

		if (data[0] & 0x80)
			gdb_type(data + 2, n);
		else
			gdb_say(data + 2, n);
		happen(data[0]);
		check_sent();
		data += 2 + n;
		size -= 2 + n;
	}
	gdb_crashed = false;
	check_clean();
	return 0;
}
