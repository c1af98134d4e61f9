/* SPDX-License-Identifier: MIT */
#include "debug/fields.h"
#include "debug/monitor.h"
#include "lib/string.h"

#define EXCEPTIONS "DE DB NMI BP OF BR UD NM DF - TS NP SS GP PF - MF AC MC XM VE CP"

/*
 * From bit 0 on; "-": without a name. SDM vol. 3 "VM-Execution Control Fields" to "VM-Entry Control
 * Fields", "Guest Non-Register State"; APM vol. 2 "VMCB Layout, Control Area".
 */
static const char *const bits[][2] = {
	{ "PIN_CONTROLS", "external-interrupt - - nmi - virtual-nmi preemption-timer "
			  "posted-interrupts" },
	{ "PROC_CONTROLS",
	  "- - interrupt-window tsc-offset - - - hlt - invlpg mwait rdpmc rdtsc - - cr3-load "
	  "cr3-store tertiary - cr8-load cr8-store tpr-shadow nmi-window mov-dr io io-bitmaps - "
	  "monitor-trap msr-bitmap monitor pause secondary" },
	{ "PROC_CONTROLS2",
	  "apic-accesses ept descriptor-tables rdtscp x2apic vpid wbinvd unrestricted-guest "
	  "apic-registers interrupt-delivery pause-loop rdrand invpcid vmfunc vmcs-shadowing encls "
	  "rdseed pml ept-ve conceal-pt xsaves - mode-based-execute sub-page pt-gpa tsc-scaling "
	  "user-wait pconfig enclv - bus-lock notify" },
	{ "EXIT_CONTROLS",
	  "- - save-debug - - - - - - host-64 - - load-perf-global - - ack-interrupt - - save-pat "
	  "load-pat save-efer load-efer save-preemption-timer clear-bndcfgs conceal-pt clear-rtit "
	  "clear-lbr - load-cet load-pkrs save-perf-global secondary" },
	{ "ENTRY_CONTROLS",
	  "- - load-debug - - - - - - ia32e-guest smm dual-monitor - load-perf-global load-pat "
	  "load-efer load-bndcfgs conceal-pt load-rtit - load-cet load-lbr load-pkrs" },
	{ "EXCEPTION_BITMAP", EXCEPTIONS },
	{ "GUEST_INTERRUPTIBILITY", "sti mov-ss smi nmi enclave" },
	{ "GUEST_PENDING_DEBUG", "b0 b1 b2 b3 - - - - - - - bus-lock breakpoint - bs - rtm" },
	{ "intercept_cr", "cr0-read - cr2-read cr3-read cr4-read - - - cr8-read - - - - - - - "
			  "cr0-write - cr2-write cr3-write cr4-write - - - cr8-write" },
	{ "intercept_dr",
	  "dr0-read dr1-read dr2-read dr3-read dr4-read dr5-read dr6-read dr7-read - - - - - - - - "
	  "dr0-write dr1-write dr2-write dr3-write dr4-write dr5-write dr6-write dr7-write" },
	{ "intercept_exceptions", EXCEPTIONS },
	{ "intercept1",
	  "intr nmi smi init vintr cr0-selective idtr-read gdtr-read ldtr-read tr-read idtr-write "
	  "gdtr-write ldtr-write tr-write rdtsc rdpmc pushf popf cpuid rsm iret int-n invd pause "
	  "hlt invlpg invlpga io msr task-switch ferr-freeze shutdown" },
	{ "intercept2",
	  "vmrun vmmcall vmload vmsave stgi clgi skinit rdtscp icebp wbinvd monitor mwait "
	  "mwait-armed xsetbv rdpru efer-trap" },
	{ "int_ctl",
	  "tpr0 tpr1 tpr2 tpr3 tpr4 tpr5 tpr6 tpr7 v-irq vgif - v-nmi v-nmi-mask - - - "
	  "prio0 prio1 prio2 prio3 ignore-tpr - - - v-intr-masking vgif-on v-nmi-on - - - "
	  "x2avic avic" },
	{ "int_state", "shadow guest-if" },
	{ "np_control", "nested-paging sev sev-es gmet" },
	{ "virt_ext", "lbr vmload-vmsave" },
	{ "clean", "intercepts iopm asid tpr np crx drx dt seg cr2 lbr avic" },
};

static void print_bits(const char *names, u64 value)
{
	const char *blank = "";

	monitor_printf(" bits=\"");
	for (u32 bit = 0; bit < 64 && value >> bit; bit++) {
		const char *end = strchr(names, ' ');
		size_t n = end ? (size_t)(end - names) : strlen(names);

		if (value >> bit & 1) {
			if (n && *names != '-')
				monitor_printf("%s%.*s", blank, (int)n, names);
			else
				monitor_printf("%sbit%u", blank, bit);
			blank = " ";
		}
		names += end ? n + 1 : n;
	}
	monitor_printf("\"");
}

/* Both vendors have the same layout. */
static void print_event(u64 value)
{
	static const char *const types[] = { "interrupt", "1",	   "nmi",  "exception",
					     "int-n",	  "icebp", "int3", "other" };

	if (value >> 31 & 1)
		monitor_printf(" vector=%lu type=%s error_code=%lu", value & 0xff,
			       types[value >> 8 & 7], value >> 11 & 1);
	else
		monitor_printf(" type=none");
}

void fields_explain(const char *name, u64 value)
{
	static const char *const events[] = { "ENTRY_INTR_INFO", "EXIT_INTR_INFO",
					      "IDT_VECTORING_INFO", "event_inj", "exit_int_info" };

	for (u32 i = 0; i < ARRAY_SIZE(bits); i++)
		if (!strcmp(name, bits[i][0]))
			print_bits(bits[i][1], value);
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		if (!strcmp(name, events[i]))
			print_event(value);
}
