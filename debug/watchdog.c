/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/timer.h"
#include "debug/watchdog.h"
#include "lib/assert.h"
#include "lib/log.h"

#define BEAT_MS	 2000
#define LIMIT_MS 10000
#define NMIS	 2 /* the first may find one that was only kept away: its timer comes then */

static struct watch {
	struct timer timer;
	u32 beats; /* atomic; 0: takes no part yet */
	u32 asked; /* NMIs since its last beat; atomic */
	/* of the CPU that it looks at */
	u32 other, seen;
	u64 seen_at; /* own TSC when `seen` was new */
} watches[MAX_CPUS];
static bool stopped;

/* Ring of those that are online; itself if it is alone. */
static u32 next_cpu(u32 me)
{
	u32 cpu = bitmap_next(cpus_online.bits, MAX_CPUS, me + 1);

	return cpu < MAX_CPUS ? cpu : bitmap_next(cpus_online.bits, MAX_CPUS, 0);
}

static void ask(u32 cpu, u64 ms)
{
	if (__atomic_add_fetch(&watches[cpu].asked, 1, __ATOMIC_SEQ_CST) > NMIS)
		panic("CPU %u hangs: no sign of life for %lu seconds, and it takes no NMI", cpu,
		      ms / 1000);
	log_warn("watchdog: no sign of life of CPU %u for %lu seconds", cpu, ms / 1000);
	apic_ipi(cpus[cpu].apic_id, APIC_ICR_ASSERT | APIC_ICR_NMI);
}

static void look(struct watch *w, u32 cpu, u64 now)
{
	u32 beats = __atomic_load_n(&watches[cpu].beats, __ATOMIC_SEQ_CST);

	if (w->other != cpu || w->seen != beats || !beats) {
		w->other = cpu;
		w->seen = beats;
		w->seen_at = now;
	} else if ((now - w->seen_at) / tsc_khz >= LIMIT_MS) {
		ask(cpu, (now - w->seen_at) / tsc_khz);
	}
}

static void beat(struct timer *t)
{
	u32 me = this_cpu(cpu_id), other = next_cpu(me);
	u64 now = rdtsc();

	__atomic_store_n(&watches[me].asked, 0, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&watches[me].beats, 1, __ATOMIC_SEQ_CST);
	if (READ_ONCE(stopped))
		return;
	if (other != me)
		look(&watches[me], other, now);
	timer_arm(t, now + (u64)BEAT_MS * tsc_khz);
}

void watchdog_start(void)
{
	struct watch *w = &watches[this_cpu(cpu_id)];

	w->other = CPU_ID_NONE;
	timer_init(&w->timer, beat);
	beat(&w->timer);
}

void watchdog_stop(void)
{
	WRITE_ONCE(stopped, true);
}

bool watchdog_hangs(void)
{
	return !READ_ONCE(stopped) &&
	       __atomic_load_n(&watches[this_cpu(cpu_id)].asked, __ATOMIC_SEQ_CST) >= NMIS;
}
