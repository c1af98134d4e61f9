/* SPDX-License-Identifier: MIT */
/* Calls between CPUs. First with one thread that plays all CPUs, so that each order of events can
 * be had; then with threads as CPUs, under ThreadSanitizer. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/timer.h"
#include "arch/x86/trap.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/spinlock.h"
#include "tests/unit/host.h"

/* ---- The machine ---- */

struct cpu cpus[MAX_CPUS];
u32 nr_cpus = MAX_CPUS;
struct cpumask cpus_online;
DEFINE_PERCPU(u32, cpu_id);
DEFINE_PERCPU(u32, irq_depth);
u32 tsc_khz;

static DEFINE_PERCPU(bool, irqs_on);
static void (*vectors[256])(void);
static bool pending[MAX_CPUS]; /* an IPI waits in this CPU's APIC; atomic */
static u64 fake_tsc;	       /* of the one thread; 0: real time in ns */
static void (*on_ipi)(u32 target);
static void (*on_rdtsc)(void);

void trap_set_irq(u8 vector, void (*handler)(void))
{
	vectors[vector] = handler;
}

void apic_ipi(u32 apic_id, u32 icr)
{
	u32 target = apic_id - 1000;

	HOST_CHECK(icr == (VECTOR_IPI_CALL | APIC_ICR_ASSERT) && target < MAX_CPUS);
	__atomic_store_n(&pending[target], true, __ATOMIC_SEQ_CST);
	if (on_ipi)
		on_ipi(target);
}

static void take_interrupts(void)
{
	if (!this_cpu(irqs_on) ||
	    !__atomic_exchange_n(&pending[this_cpu(cpu_id)], false, __ATOMIC_SEQ_CST))
		return;
	this_cpu(irqs_on) = false;
	this_cpu(irq_depth)++;
	vectors[VECTOR_IPI_CALL]();
	this_cpu(irq_depth)--;
	this_cpu(irqs_on) = true;
}

void irq_enable(void)
{
	this_cpu(irqs_on) = true;
	take_interrupts();
}

void irq_disable(void)
{
	this_cpu(irqs_on) = false;
}

u64 read_flags(void)
{
	take_interrupts();
	return this_cpu(irqs_on) ? X86_EFLAGS_IF : 0;
}

u64 rdtsc(void)
{
	struct timespec now;

	take_interrupts();
	if (on_rdtsc)
		on_rdtsc();
	if (fake_tsc)
		return fake_tsc += 1000;
	sched_yield();
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static char last_error[256];
static u32 no_answers; /* atomic */

static void sink(enum log_level level, const char *line, size_t len)
{
	if (level != LOG_ERR)
		return;
	memcpy(last_error, line, MIN(len, sizeof(last_error) - 1));
	last_error[MIN(len, sizeof(last_error) - 1)] = '\0';
	__atomic_add_fetch(&no_answers, 1, __ATOMIC_SEQ_CST);
}

static u32 *held_ranks; /* NULL: not checked */

static u32 *ranks_held(void)
{
	return held_ranks;
}

static void be(u32 cpu)
{
	this_cpu(cpu_id) = cpu;
	this_cpu(irqs_on) = false;
	this_cpu(irq_depth) = 0;
}

/* ---- The calls ---- */

/* What a call is about. Plain fields: a handler that sees a later call's is a race. */
struct call {
	u32 caller;
	u64 number;
	u64 dawdle;	  /* how long the handler takes */
	bool open;	  /* the caller waits for it, or has posted it */
	u8 ran[MAX_CPUS]; /* how often, by target */
};

static DEFINE_PERCPU(bool, away); /* between ipi_leave() and ipi_join() */

static int value_of(u32 caller, u64 number, u32 target)
{
	return (int)((number * 7919 + caller * 257 + target) & 0xffffff) + 1;
}

static int record(void *arg)
{
	struct call *c = arg;
	u32 me = this_cpu(cpu_id);

	HOST_CHECK(!this_cpu(irqs_on) && this_cpu(irq_depth) > 0 && !this_cpu(away) && c->open);
	for (u64 i = c->dawdle; i; i--)
		sched_yield();
	c->ran[me]++;
	return value_of(c->caller, c->number, me);
}

/* One of CPU 0's. */
static struct call new_call(u64 number)
{
	return (struct call){ .number = number, .open = true };
}

static struct cpumask mask_of(u32 first, u32 last)
{
	struct cpumask m = { 0 };

	for (u32 i = first; i <= last; i++)
		bitmap_set(m.bits, i);
	return m;
}

/* ---- One thread plays all CPUs ---- */

static int setup(void **state)
{
	(void)state;
	memset(&cpus_online, 0, sizeof(cpus_online));
	memset(pending, 0, sizeof(pending));
	for (u32 i = 0; i < MAX_CPUS; i++) {
		cpus[i].apic_id = i + 1000;
		be(i);
		ipi_join(); /* also empties what the test before left */
	}
	cpus_online = mask_of(0, 3);
	be(0);
	on_ipi = NULL;
	on_rdtsc = NULL;
	tsc_khz = 1000;
	fake_tsc = 1;
	no_answers = 0;
	last_error[0] = '\0';
	host_failures = 0;
	ipi_set_handler(IPI_PING, record);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return host_failures ? -1 : 0;
}
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* Run f as another CPU, interrupts off, and be the one that one was. */
static void as(u32 cpu, void (*f)(void))
{
	u32 me = this_cpu(cpu_id), depth = this_cpu(irq_depth);
	bool on = this_cpu(irqs_on);

	be(cpu);
	f();
	be(me);
	this_cpu(irq_depth) = depth;
	this_cpu(irqs_on) = on;
}

static void answer_at_once(u32 target)
{
	if (target != this_cpu(cpu_id))
		as(target, ipi_poll);
}

/* From and to each side of each border between the words of a bitmap. */
static void all_words_of_the_mask(void **state)
{
	static const u32 callers[] = { 0, 1, 63, 64, 127, 128, 191, 192, 255 };
	struct cpumask all = mask_of(0, 255), some = { 0 };
	int results[MAX_CPUS];

	(void)state;
	on_ipi = answer_at_once;
	cpus_online = all;
	for (u32 i = 0; i < ARRAY_SIZE(callers); i++)
		bitmap_set(some.bits, callers[i]);
	for (u32 i = 0; i < ARRAY_SIZE(callers) * 2; i++) {
		const struct cpumask *mask = i % 2 ? &all : &some;
		struct call c = { .caller = callers[i / 2], .number = i, .open = true };

		be(c.caller);
		memset(results, 0, sizeof(results));
		ipi_call(IPI_PING, mask, &c, results);
		for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
			bool asked = bitmap_test(mask->bits, cpu);

			assert_int_equal(c.ran[cpu], asked);
			assert_int_equal(results[cpu], asked ? value_of(c.caller, i, cpu) : 0);
		}
	}
}

static int fails_on_2(void *arg)
{
	(void)arg;
	return this_cpu(cpu_id) == 2 ? -EIO : 0;
}

static void what_is_returned(void **state)
{
	struct cpumask all = mask_of(0, 3), none = { 0 }, more = mask_of(2, 5);
	int results[MAX_CPUS];

	(void)state;
	on_ipi = answer_at_once;
	ipi_set_handler(IPI_PING, fails_on_2);
	assert_int_equal(ipi_call(IPI_PING, &all, NULL, NULL), -EIO);
	assert_int_equal(ipi_call(IPI_PING, &none, NULL, NULL), 0);
	assert_int_equal(ipi_call(IPI_COMPARE, &all, NULL, results), -EOPNOTSUPP);
	assert_int_equal(results[3], -EOPNOTSUPP);
	assert_int_not_equal(ipi_call(IPI_PING, &more, NULL, results), 0);
	assert_int_equal(results[2], -EIO);
	assert_int_equal(results[3], 0);
	assert_int_equal(results[4], -ENODEV);
	assert_int_equal(results[5], -ENODEV);
	bitmap_clear(all.bits, 2);
	assert_int_equal(ipi_call(IPI_PING, &all, NULL, NULL), 0);
}

/* Posts to one CPU and then another call elsewhere: what a target has not seen yet stays as it is.
 */
static void posts_are_not_overwritten(void **state)
{
	struct cpumask one = mask_of(1, 1), two = mask_of(2, 2);
	struct call first = new_call(1), second = new_call(2);
	int results[MAX_CPUS];

	(void)state;
	ipi_post(IPI_PING, &one, &first);
	assert_int_equal(first.ran[1], 0);
	on_ipi = answer_at_once;
	ipi_call(IPI_PING, &two, &second, results);
	assert_int_equal(results[2], value_of(0, 2, 2));
	assert_int_equal(first.ran[1], 0);
	as(1, ipi_poll);
	assert_int_equal(first.ran[1], 1);
	assert_int_equal(second.ran[1], 0);
}

static void leave_and_join(void)
{
	ipi_leave();
	ipi_join();
}

/* The target saw the call in its inbox when it left: it answers, and runs it once. */
static void left_after_it_was_asked(u32 target)
{
	as(target, ipi_leave);
}

static void answered_on_leaving(void **state)
{
	struct cpumask one = mask_of(1, 1);
	struct call call = new_call(1), post = new_call(2);
	int results[MAX_CPUS];

	(void)state;
	on_ipi = left_after_it_was_asked;
	ipi_call(IPI_PING, &one, &call, results);
	assert_int_equal(results[1], value_of(0, 1, 1));
	as(1, ipi_join);
	ipi_post(IPI_PING, &one, &post);
	assert_int_equal(post.ran[1], 1);
	as(1, ipi_join);
	assert_int_equal(call.ran[1], 1);
	assert_int_equal(post.ran[1], 1);
}

/* The target looked into its inbox a last time just before the caller's bit came. */
static void left_before_it_was_asked(u32 target)
{
	bitmap_test_and_clear_atomic(cpus_online.bits, target);
}

static void too_late_for_the_leaver(void **state)
{
	struct cpumask one = mask_of(1, 1);
	struct call call = new_call(1), post = new_call(2);
	int results[MAX_CPUS];

	(void)state;
	on_ipi = left_before_it_was_asked;
	assert_int_equal(ipi_call(IPI_PING, &one, &call, results), -ENODEV);
	assert_int_equal(results[1], -ENODEV);
	bitmap_test_and_set_atomic(cpus_online.bits, 1);
	ipi_post(IPI_PING, &one, &post);
	as(1, ipi_join);
	assert_int_equal(call.ran[1], 0);
	assert_int_equal(post.ran[1], 0);
	assert_int_equal(no_answers, 0);
}

/* It was away when the IPI came, which is lost; and is back when the caller looks. */
static void away_and_back(u32 target)
{
	as(target, ipi_join);
	pending[target] = false;
}

static void asked_while_it_was_away(void **state)
{
	struct cpumask one = mask_of(1, 1);
	struct call call = new_call(1);
	int results[MAX_CPUS];

	(void)state;
	on_ipi = away_and_back;
	ipi_call(IPI_PING, &one, &call, results);
	assert_int_equal(results[1], value_of(0, 1, 1));
}

/* It leaves while the caller waits, just too early to see the call. */
static void leaves_later(void)
{
	if (fake_tsc == 1 + 10 * 1000)
		left_before_it_was_asked(1);
}

static void left_during_the_wait(void **state)
{
	struct cpumask one = mask_of(1, 1);
	struct call call = new_call(1);

	(void)state;
	on_rdtsc = leaves_later;
	assert_int_equal(ipi_call(IPI_PING, &one, &call, NULL), -ENODEV);
	assert_int_equal(no_answers, 0);
	as(1, ipi_join);
	assert_int_equal(call.ran[1], 0); /* nor does it run later */
}

/* cpus_online as the mask, and one more CPU comes online meanwhile. */
static void one_more(u32 target)
{
	answer_at_once(target);
	if (target == 2)
		as(1, ipi_join);
}

static void the_mask_grows(void **state)
{
	struct call call = new_call(1);
	int results[MAX_CPUS];

	(void)state;
	bitmap_clear(cpus_online.bits, 1);
	on_ipi = one_more;
	results[1] = 12345;
	ipi_call(IPI_PING, &cpus_online, &call, results);
	assert_int_equal(no_answers, 0);
	assert_int_equal(call.ran[1], 0);
	assert_int_equal(results[1], 12345);
	assert_int_equal(results[2], value_of(0, 1, 2));
}

static void no_answer(void **state)
{
	struct cpumask three = mask_of(1, 3);
	struct call call = new_call(1), next = new_call(2);
	int results[MAX_CPUS];
	u64 before = fake_tsc;

	(void)state;
	assert_int_equal(ipi_call(IPI_PING, &three, &call, results), -ETIMEDOUT);
	assert_in_range(fake_tsc - before, 2000 * 1000, 2 * 2000 * 1000); /* 2 s, not one by one */
	assert_int_equal(results[1], -ETIMEDOUT);
	assert_int_equal(results[3], -ETIMEDOUT);
	assert_int_equal(no_answers, 3);
	assert_non_null(strstr(last_error, "CPU 3 does not answer a call of CPU 0: ping"));
	/* They come back to life: the call that was given up is gone, the next one is answered. */
	as(1, ipi_poll);
	on_ipi = answer_at_once;
	ipi_call(IPI_PING, &three, &next, results);
	for (u32 i = 1; i <= 3; i++) {
		assert_int_equal(call.ran[i], 0);
		assert_int_equal(next.ran[i], 1);
		assert_int_equal(results[i], value_of(0, 2, i));
	}
}

static void nothing_while_offline(void **state)
{
	struct cpumask one = mask_of(1, 1);
	struct call call = new_call(1);

	(void)state;
	ipi_post(IPI_PING, &one, &call);
	bitmap_test_and_clear_atomic(cpus_online.bits, 1);
	as(1, ipi_poll);
	assert_int_equal(call.ran[1], 0);
	as(1, leave_and_join);
	assert_int_equal(call.ran[1], 1);
}

/* ---- Where calls are forbidden ---- */

static jmp_buf after_panic;

static void NORETURN panicked(const char *message)
{
	(void)message;
	longjmp(after_panic, 1);
}

static int calls_again(void *arg)
{
	return ipi_call(IPI_PING, &cpus_online, arg, NULL);
}

static int posts_again(void *arg)
{
	ipi_post(IPI_PING, &cpus_online, arg);
	return 0;
}

static int leaves(void *arg)
{
	(void)arg;
	ipi_leave();
	return 0;
}

/* cpu: one that no other test has; its slot stays in use. */
static bool panics_in_handler(u32 cpu, int (*handler)(void *))
{
	struct cpumask self = mask_of(cpu, cpu);
	volatile bool panic = true;

	ipi_set_handler(IPI_COMPARE, handler);
	be(cpu);
	ipi_join();
	panic_hook = panicked;
	if (!setjmp(after_panic)) {
		ipi_call(IPI_COMPARE, &self, NULL, NULL);
		panic = false;
	}
	panic_hook = NULL;
	be(0);
	ipi_set_handler(IPI_COMPARE, NULL);
	return panic;
}

static void not_from_a_handler(void **state)
{
	(void)state;
	assert_false(panics_in_handler(200, fails_on_2));
	assert_true(panics_in_handler(201, calls_again));
	assert_true(panics_in_handler(202, posts_again));
	assert_true(panics_in_handler(203, leaves));
}

static void not_with_a_lock_held(void **state)
{
	u32 held = 0;
	u64 warnings = host_warnings;

	(void)state;
	on_ipi = answer_at_once;
	held_ranks = &held;
	ipi_call(IPI_PING, &cpus_online, &(struct call){ .open = true }, NULL);
	assert_int_equal(host_warnings, warnings);
	held = BIT(RANK_VM);
	ipi_call(IPI_PING, &cpus_online, &(struct call){ .open = true }, NULL);
	assert_int_equal(host_warnings, warnings + 1);
	held_ranks = NULL;
}

/* ---- Threads as CPUs ---- */

static const u32 thread_cpus[] = { 0, 1, 63, 64, 130, 255 };
#define THREADS ARRAY_SIZE(thread_cpus)

struct worker {
	pthread_t id;
	u32 cpu;
	u64 seed;
	void (*body)(struct worker *w);
	struct call call, posts[2];
	u32 values, gone, leaves;
};
static struct worker workers[THREADS];
static pthread_barrier_t start;
static u32 working; /* atomic */
static struct spinlock some_lock = SPINLOCK_INIT(RANK_DEVICE);
static u64 locked_count;

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	be(w->cpu);
	ipi_join();
	pthread_barrier_wait(&start);
	w->body(w);
	irq_enable();
	__atomic_sub_fetch(&working, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&working, __ATOMIC_SEQ_CST))
		rdtsc();
	return NULL;
}

/* The first `count` CPUs, which do what they are given. */
static void run_threads(u32 count, void (*const bodies[])(struct worker *w), u32 khz)
{
	fake_tsc = 0;
	tsc_khz = khz;
	cpus_online = (struct cpumask){ 0 };
	pthread_barrier_init(&start, NULL, count);
	working = count;
	memset(workers, 0, sizeof(workers));
	for (u32 i = 0; i < count; i++) {
		struct worker *w = &workers[i];

		w->cpu = thread_cpus[i];
		w->seed = host_seed() + i;
		w->body = bodies[i];
		assert_int_equal(pthread_create(&w->id, NULL, worker_main, w), 0);
	}
	for (u32 i = 0; i < count; i++)
		pthread_join(workers[i].id, NULL);
	pthread_barrier_destroy(&start);
	assert_int_equal(host_failures, 0);
}

#define PATIENT 30000000 /* 2 s are a minute: this machine may be busy */
#define QUICK	50000	 /* 2 s are 100 ms */

static void open_call(struct call *c, const struct worker *w, u64 number)
{
	memset(c, 0, sizeof(*c));
	c->caller = w->cpu;
	c->number = number;
	c->open = true;
}

/* Each CPU of the mask has run it and said so, or is gone and has not; nobody else has. */
static void check_call(struct worker *w, const struct call *c, const struct cpumask *mask,
		       const int results[MAX_CPUS])
{
	for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		bool asked = bitmap_test(mask->bits, cpu);
		bool gone = asked && results[cpu] == -ENODEV;

		HOST_CHECK(c->ran[cpu] == (asked && !gone));
		HOST_CHECK(!asked || gone || results[cpu] == value_of(c->caller, c->number, cpu));
		w->values += asked && !gone;
		w->gone += gone;
	}
}

static void call_once(struct worker *w, const struct cpumask *mask, u64 number)
{
	int results[MAX_CPUS];

	open_call(&w->call, w, number);
	w->call.dawdle = number % 64 ? 0 : 50;
	ipi_call(IPI_PING, mask, &w->call, results);
	w->call.open = false;
	check_call(w, &w->call, mask, results);
}

static struct cpumask random_mask(struct worker *w)
{
	struct cpumask m = { 0 };
	u64 r = host_random(&w->seed);

	for (u32 i = 0; i < THREADS; i++)
		if (r % 3 == 0 || (r >> (8 + i)) & 1)
			bitmap_set(m.bits, thread_cpus[i]);
	return m;
}

static void random_irqs(struct worker *w)
{
	if (host_random(&w->seed) % 2)
		irq_enable();
	else
		irq_disable();
}

static void calls_all(struct worker *w)
{
	for (u32 i = 0; i < 400; i++) {
		random_irqs(w);
		call_once(w, &cpus_online, i);
	}
}

static void everybody_calls_everybody(void **state)
{
	void (*const bodies[])(struct worker * w) = { calls_all, calls_all, calls_all,
						      calls_all, calls_all, calls_all };

	(void)state;
	run_threads(THREADS, bodies, PATIENT);
	for (u32 i = 0; i < THREADS; i++)
		assert_int_equal(workers[i].values, 400 * THREADS);
}

static void calls_with_irqs_off(struct worker *w)
{
	irq_disable();
	for (u32 i = 0; i < 2000; i++)
		call_once(w, &cpus_online, i);
}

static void two_call_each_other(void **state)
{
	void (*const bodies[])(struct worker * w) = { calls_with_irqs_off, calls_with_irqs_off };

	(void)state;
	run_threads(2, bodies, PATIENT);
	assert_int_equal(workers[0].values + workers[1].values, 2 * 2 * 2000);
}

/* Two posts with an argument each, then a call at once. Some spin for a lock meanwhile. */
static void posts_then_calls(struct worker *w)
{
	for (u32 i = 0; i < 300; i++) {
		struct cpumask mask = cpus_online;

		random_irqs(w);
		for (u32 n = 0; n < 2; n++) {
			open_call(&w->posts[n], w, i * 10 + n);
			ipi_post(IPI_PING, &mask, &w->posts[n]);
		}
		call_once(w, &mask, i * 10 + 5);
		for (u32 n = 0; n < 2; n++)
			for_each_cpu(cpu, &mask)
				HOST_CHECK(w->posts[n].ran[cpu] == 1);
		irq_disable();
		spin_lock(&some_lock);
		locked_count++;
		spin_unlock(&some_lock);
	}
}

static void posts_before_calls(void **state)
{
	void (*const bodies[])(struct worker * w) = { posts_then_calls, posts_then_calls,
						      posts_then_calls, posts_then_calls };

	(void)state;
	locked_count = 0;
	run_threads(4, bodies, PATIENT);
	assert_int_equal(locked_count, 4 * 300);
}

static void go_away(struct worker *w)
{
	u32 me = this_cpu(cpu_id);

	irq_disable();
	ipi_leave();
	this_cpu(away) = true;
	for (u64 i = host_random(&w->seed) % 20; i; i--) {
		rdtsc();
		ipi_poll();
	}
	__atomic_store_n(&pending[me], false, __ATOMIC_SEQ_CST); /* INIT forgets it */
	this_cpu(away) = false;
	ipi_join();
	w->leaves++;
}

static void comes_and_goes(struct worker *w)
{
	for (u32 i = 0; i < 1000; i++) {
		struct cpumask mask = random_mask(w);
		bool post = host_random(&w->seed) % 4 == 0;

		random_irqs(w);
		if (post) {
			open_call(&w->posts[0], w, i + 100000);
			ipi_post(IPI_PING, &mask, &w->posts[0]);
		}
		call_once(w, &mask, i);
		w->posts[0].open = false; /* done with: the call came after it */
		for_each_cpu(cpu, &mask)
			HOST_CHECK(!post || w->posts[0].ran[cpu] <= 1);
		if (host_random(&w->seed) % 2)
			go_away(w);
	}
}

static void cpus_come_and_go(void **state)
{
	void (*const bodies[])(struct worker * w) = { comes_and_goes, comes_and_goes,
						      comes_and_goes, comes_and_goes,
						      comes_and_goes, comes_and_goes };

	(void)state;
	run_threads(THREADS, bodies, PATIENT);
	assert_int_equal(no_answers, 0);
	for (u32 i = 0; i < THREADS; i++) {
		assert_true(workers[i].values > 1000);
		assert_true(workers[i].gone > 100);
		assert_true(workers[i].leaves > 100);
	}
}

/* A CPU that is stuck in a handler: its answer comes when the caller has gone on to other things.
 */
static bool let_go; /* atomic */

static int stuck(void *arg)
{
	while (!__atomic_load_n(&let_go, __ATOMIC_SEQ_CST))
		sched_yield();
	return record(arg);
}

static void calls_the_stuck(struct worker *w)
{
	struct cpumask mask = mask_of(1, 1);
	int results[MAX_CPUS];

	irq_disable();
	open_call(&w->call, w, 1);
	HOST_CHECK(ipi_call(IPI_CAPS, &mask, &w->call, NULL) == -ETIMEDOUT);
	HOST_CHECK(strstr(last_error, "CPU 1 does not answer a call of CPU 0: read capabilities"));
	open_call(&w->posts[0], w, 2);
	HOST_CHECK(ipi_call(IPI_PING, &mask, &w->posts[0], results) == -ETIMEDOUT);
	HOST_CHECK(results[1] == -ETIMEDOUT);
	__atomic_store_n(&let_go, true, __ATOMIC_SEQ_CST);
	open_call(&w->posts[1], w, 3);
	ipi_call(IPI_PING, &mask, &w->posts[1], results);
	HOST_CHECK(results[1] == value_of(0, 3, 1));
	HOST_CHECK(w->call.ran[1] == 1 && w->posts[0].ran[1] == 0 && w->posts[1].ran[1] == 1);
}

static void idles(struct worker *w)
{
	(void)w;
}

static void late_answer(void **state)
{
	void (*const bodies[])(struct worker * w) = { calls_the_stuck, idles };

	(void)state;
	let_go = false;
	ipi_set_handler(IPI_CAPS, stuck);
	run_threads(2, bodies, QUICK);
	assert_int_equal(no_answers, 2);
}

/*
 * CPU 0 holds a lock of the log, CPU 1 spins for it with interrupts off, CPU 63 calls CPU 1, and
 * the handler takes this lock.
 */
static struct spinlock log_like = SPINLOCK_INIT(RANK_LOG);
static bool held; /* atomic */

static int takes_lock(void *arg)
{
	spin_lock(&log_like);
	spin_unlock(&log_like);
	return record(arg);
}

static void holds_the_lock(struct worker *w)
{
	(void)w;
	spin_lock(&log_like);
	__atomic_store_n(&held, true, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&log_like.next, __ATOMIC_SEQ_CST) == 1 ||
	       !__atomic_load_n(&pending[1], __ATOMIC_SEQ_CST))
		sched_yield();
	usleep(20000); /* time for CPU 1 to do the wrong thing */
	spin_unlock(&log_like);
}

static void spins_for_the_lock(struct worker *w)
{
	(void)w;
	while (!__atomic_load_n(&held, __ATOMIC_SEQ_CST))
		sched_yield();
	spin_lock(&log_like);
	spin_unlock(&log_like);
}

static void calls_who_spins(struct worker *w)
{
	struct cpumask mask = mask_of(1, 1);
	int results[MAX_CPUS];

	while (__atomic_load_n(&log_like.next, __ATOMIC_SEQ_CST) < 2)
		sched_yield();
	open_call(&w->call, w, 9);
	ipi_call(IPI_CAPS, &mask, &w->call, results);
	HOST_CHECK(results[1] == value_of(63, 9, 1));
}

static void handlers_may_log(void **state)
{
	void (*const bodies[])(struct worker * w) = { holds_the_lock, spins_for_the_lock,
						      calls_who_spins };

	(void)state;
	ipi_set_handler(IPI_CAPS, takes_lock);
	run_threads(3, bodies, PATIENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(all_words_of_the_mask),
		CASE(what_is_returned),
		CASE(posts_are_not_overwritten),
		CASE(answered_on_leaving),
		CASE(too_late_for_the_leaver),
		CASE(asked_while_it_was_away),
		CASE(left_during_the_wait),
		CASE(the_mask_grows),
		CASE(no_answer),
		CASE(nothing_while_offline),
		CASE(not_from_a_handler),
		CASE(not_with_a_lock_held),
		CASE(everybody_calls_everybody),
		CASE(two_call_each_other),
		CASE(posts_before_calls),
		CASE(cpus_come_and_go),
		CASE(late_answer),
		CASE(handlers_may_log),
	};

	alarm(500); /* a deadlock is a failure, too */
	host_hooks_open();
	log_sink = sink;
	spin_held_hook = ranks_held;
	ipi_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
