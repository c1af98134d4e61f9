/* SPDX-License-Identifier: MIT */
/* The virtio network with its switches, the console, and the random numbers. */
#include "tests/unit/virtio_fake.h"

#include <asm-generic/errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#define VMS	 3
#define RECEIVE	 0
#define TRANSMIT 1
#define HEADER	 12
#define FRAME	 1514
#define OUT(i)	 (BUFFERS + (i)*0x1000)
#define IN(i, n) (BUFFERS + 0x10000 + (i)*0x20000 + (n)*0x800)

static struct vm *vms[VMS];
static struct fake_ring rx[VMS], tx[VMS];

static struct virtio *card(u32 i)
{
	return platform_virtio(vms[i], VIRTIO_SLOT_NET);
}

static void give_buffers(u32 i, u32 n, u32 len)
{
	for (u32 k = 0; k < n; k++) {
		const struct fake_buffer b[] = { { IN(i, k), HEADER, true },
						 { IN(i, k) + HEADER, len, true } };

		virtio_add(&rx[i], b, 2);
	}
	virtio_kick(&rx[i]);
}

static void card_start(u32 i)
{
	struct vcpu *v = vms[i]->vcpus[0];

	assert_true(virtio_begin(v, VIRTIO_SLOT_NET, BIT(VIRTIO_NET_F_MAC)));
	virtio_ring(&rx[i], v, VIRTIO_SLOT_NET, RECEIVE, 64);
	virtio_ring(&tx[i], v, VIRTIO_SLOT_NET, TRANSMIT, 64);
	virtio_driver_ok(v, VIRTIO_SLOT_NET);
	vms[i]->state = VM_RUNNING;
}

/* VMs 0 and 1 are on one switch, 2 is on another, with the address of 1. */
static int net_setup(void **state)
{
	(void)state;
	for (u32 i = 0; i < VMS; i++) {
		fake_devices.network = (struct virtio_network){ i < 2 ? "lab" : "other",
								{ 2, 0, 0, 0, 0, MIN(i, 1) } };
		vms[i] = fake_vm(1);
		assert_non_null(vms[i]);
		vms[i]->id = (u16)(i + 1);
		card_start(i);
	}
	return 0;
}

static int net_teardown(void **state)
{
	(void)state;
	for (u32 i = 0; i < VMS; i++)
		if (vms[i])
			fake_vm_free(vms[i]);
	assert_int_equal(fake_frames, 0);
	fake_devices.network.name = NULL;
	return 0;
}

static void put_frame(u32 i, u8 first, u8 last, u32 len)
{
	u8 *p = fake_memory + OUT(i) + HEADER;

	for (u32 k = 0; k < len; k++)
		p[k] = (u8)(k * 3 + len);
	memset(p, 0, 6);
	p[0] = first;
	p[5] = last;
}

/* In two pieces, as Linux does; the header's content is of no interest. */
static void send(u32 i, u32 len)
{
	const struct fake_buffer b[] = { { OUT(i), HEADER, false },
					 { OUT(i) + HEADER, len, false } };

	memset(fake_memory + OUT(i), 0xff, HEADER);
	virtio_add(&tx[i], b, 2);
	virtio_kick(&tx[i]);
	assert_int_equal(virtio_used(&tx[i], NULL), 1);
}

static void check_received(u32 i, u32 n, u32 from, u32 len)
{
	static const u8 header[HEADER] = { [10] = 1 };
	struct vring_used_elem e;

	assert_int_equal(virtio_used(&rx[i], &e), 1);
	assert_int_equal(e.len, HEADER + len);
	assert_memory_equal(fake_memory + IN(i, n), header, HEADER);
	assert_memory_equal(fake_memory + IN(i, n) + HEADER, fake_memory + OUT(from) + HEADER, len);
}

static void test_address(void **state)
{
	(void)state;
	for (u32 i = 0; i < 6; i++)
		assert_int_equal(mmio_get(vms[1]->vcpus[0],
					  VIRTIO_GPA(VIRTIO_SLOT_NET) + VIRTIO_MMIO_CONFIG + i, 1),
				 i == 0 ? 2 : i == 5);
	assert_int_equal(virtio_get(vms[0]->vcpus[0], VIRTIO_SLOT_NET, VIRTIO_MMIO_DEVICE_ID),
			 VIRTIO_ID_NET);
}

static void test_unicast(void **state)
{
	static const u32 lengths[] = { 14, 60, FRAME, 1518 };

	(void)state;
	give_buffers(0, 4, 1600);
	give_buffers(1, 4, 1600);
	give_buffers(2, 4, 1600);
	for (u32 n = 0; n < ARRAY_SIZE(lengths); n++) {
		put_frame(0, 2, 1, lengths[n]);
		send(0, lengths[n]);
		check_received(1, n, 0, lengths[n]);
	}
	assert_int_equal(virtio_used(&rx[0], NULL), 0);
	assert_int_equal(virtio_used(&rx[2], NULL), 0); /* the same address, another switch */
	put_frame(0, 2, 9, 60);				/* nobody's */
	send(0, 60);
	put_frame(0, 2, 0, 60); /* to oneself */
	send(0, 60);
	for (u32 i = 0; i < VMS; i++)
		assert_int_equal(virtio_used(&rx[i], NULL), 0);
}

static void test_group(void **state)
{
	(void)state;
	give_buffers(0, 2, 1600);
	give_buffers(1, 2, 1600);
	give_buffers(2, 2, 1600);
	put_frame(1, 0xff, 0xff, 100);
	send(1, 100);
	check_received(0, 0, 1, 100);
	put_frame(1, 0x33, 5, 200); /* multicast */
	send(1, 200);
	check_received(0, 1, 1, 200);
	assert_int_equal(virtio_used(&rx[1], NULL), 0);
	assert_int_equal(virtio_used(&rx[2], NULL), 0);
}

static void test_drops(void **state)
{
	static const u32 wrong[] = { 1, 13, 1519, 4000 };

	(void)state;
	put_frame(0, 2, 1, 60);
	send(0, 60); /* no buffer */
	assert_int_equal(card(1)->dropped, 1);
	give_buffers(1, 2, 59);
	send(0, 60); /* a small one */
	assert_int_equal(card(1)->errors, 1);
	assert_int_equal(virtio_used(&rx[1], NULL), 1);
	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++)
		send(0, wrong[i]);
	assert_int_equal(card(0)->errors, ARRAY_SIZE(wrong));
	assert_int_equal(virtio_used(&rx[1], NULL), 0);
	send(0, 59);
	assert_int_equal(virtio_used(&rx[1], NULL), 1);
}

/* A receiver that stops, restarts, breaks its ring or goes away costs the sender nothing. */
static void test_receiver_goes(void **state)
{
	u16 before;

	(void)state;
	put_frame(0, 2, 1, 60);
	give_buffers(1, 2, 1600);
	before = rx[1].used_ring->idx;
	vms[1]->state = VM_STOPPED;
	send(0, 60);
	vms[1]->irqchip->reset(vms[1]);
	memset(fake_memory + IN(1, 0), 0, 0x1000);
	send(0, 60);
	vms[1]->state = VM_RUNNING;
	send(0, 60);
	assert_int_equal(rx[1].used_ring->idx, before);
	for (u32 i = 0; i < 0x1000; i++)
		assert_int_equal(fake_memory[IN(1, 0) + i], 0);
	assert_int_equal(card(1)->dropped, 3);
	card_start(1);
	give_buffers(1, 2, 1600);
	send(0, 60);
	check_received(1, 0, 0, 60);
	rx[1].avail_ring->idx = 999;
	send(0, 60);
	assert_int_equal(card(1)->broken, 1);
	assert_int_equal(card(0)->broken, 0);
	assert_non_null(strstr(fake_log_line, "virtio-net: queue 0: available index jumps"));
	send(0, 60);
	fake_vm_free(vms[1]);
	vms[1] = NULL;
	send(0, 60);
	assert_int_equal(card(0)->errors, 0);
}

static void test_address_twice(void **state)
{
	u32 before;

	(void)state;
	fake_devices.network = (struct virtio_network){ "lab", { 2, 0, 0, 0, 0, 1 } };
	before = fake_frames;
	assert_null(fake_vm(1));
	assert_int_equal(fake_frames, before);
	assert_non_null(strstr(fake_log_line, "another VM on 'lab' has its MAC address"));
}

/* A ring full of frames is sliced. */
static void test_burst(void **state)
{
	const struct fake_buffer b = { OUT(0), HEADER + FRAME, false };

	(void)state;
	put_frame(0, 2, 1, FRAME);
	for (u32 i = 0; i < 64; i++)
		virtio_add(&tx[0], &b, 1);
	give_buffers(1, 30, 1600);
	assert_in_range(virtio_kick(&tx[0]), 2, 8);
	assert_int_equal(virtio_used(&tx[0], NULL), 64);
	assert_int_equal(virtio_used(&rx[1], NULL), 30);
	assert_int_equal(card(1)->dropped, 34);
	assert_int_equal(card(1)->bytes, 30 * FRAME);
}

/* ---- Random numbers ---- */

static struct vm *vm;
static struct fake_ring ring, input;
static u8 said[8192];
static size_t said_len, pieces, ready;

static void output(void *arg, const u8 *bytes, size_t n)
{
	(void)arg;
	memcpy(said + said_len, bytes, n);
	said_len += n;
	pieces++;
}

static void input_ready(void *arg)
{
	(void)arg;
	ready++;
}

/* A frame for which memory is missing is held, and arrives once; those behind it are dropped. */
static void net_missing_memory(void **state)
{
	struct vring_used_elem e = { 0 };

	(void)state;
	give_buffers(1, 4, FRAME);
	fake_missing = IN(1, 0) + HEADER;
	fake_missing_size = 1;
	for (u32 i = 0; i < 3; i++) {
		const struct fake_buffer b[] = { { OUT(i), HEADER, false },
						 { OUT(i) + HEADER, 100, false } };

		memset(fake_memory + OUT(i), 0, HEADER + 100);
		memset(fake_memory + OUT(i) + HEADER, 0xff, 6);
		fake_memory[OUT(i) + HEADER + 99] = (u8)(i + 1);
		virtio_add(&tx[0], b, 2);
		virtio_kick(&tx[0]);
	}
	assert_int_equal(virtio_used(&tx[0], NULL), 3); /* the sender does not wait */
	assert_int_equal(virtio_used(&rx[1], &e), 0);
	assert_int_equal(card(1)->dropped, 2);
	vms[1]->retry_devices(vms[1]); /* still missing */
	assert_int_equal(virtio_used(&rx[1], &e), 0);
	fake_missing_size = 0;
	vms[1]->retry_devices(vms[1]);
	assert_int_equal(virtio_used(&rx[1], &e), 1);
	assert_int_equal(e.len, HEADER + 100);
	assert_int_equal(fake_memory[IN(1, 0) + HEADER + 99], 1);
	vms[1]->retry_devices(vms[1]);
	assert_int_equal(virtio_used(&rx[1], &e), 0);
	assert_int_equal(card(1)->broken, 0);
}

static int setup(void **state)
{
	(void)state;
	fake_devices.rng = true;
	vm = fake_vm(1);
	assert_non_null(vm);
	said_len = pieces = ready = 0;
	platform_uart(vm)->output = output;
	platform_uart(vm)->input_ready = input_ready;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	fake_random_left = ~0u;
	fake_devices.rng = false;
	assert_int_equal(fake_frames, 0);
	return 0;
}

static void start(u32 slot, u32 queues)
{
	struct vcpu *v = vm->vcpus[0];

	assert_true(virtio_begin(v, slot, 0));
	virtio_ring(queues == 1 ? &ring : &input, v, slot, 0, 16);
	if (queues == 2)
		virtio_ring(&ring, v, slot, 1, 16);
	virtio_driver_ok(v, slot);
}

static u32 ask(u32 len)
{
	const struct fake_buffer b = { BUFFERS, len, true };
	struct vring_used_elem e = { 0 };

	memset(fake_memory + BUFFERS, 0xee, 1024);
	virtio_add(&ring, &b, 1);
	virtio_kick(&ring);
	assert_int_equal(virtio_used(&ring, &e), 1);
	assert_int_equal(fake_memory[BUFFERS + e.len], 0xee);
	return e.len;
}

static void test_random(void **state)
{
	struct virtio *d = platform_virtio(vm, VIRTIO_SLOT_RNG);
	u64 a, b;

	(void)state;
	start(VIRTIO_SLOT_RNG, 1);
	assert_int_equal(ask(16), 16);
	memcpy(&a, fake_memory + BUFFERS, 8);
	memcpy(&b, fake_memory + BUFFERS + 8, 8);
	assert_int_equal(b, a + 1);
	assert_int_equal(ask(1), 1);
	assert_int_equal(ask(13), 13);
	assert_int_equal(ask(1000), 256);
	assert_int_equal(d->errors, 0);
	fake_random_left = 1;
	assert_int_equal(ask(16), 8);
	assert_int_equal(ask(16), 0);
	assert_int_equal(d->errors, 2);
	virtio_add(&ring, &(struct fake_buffer){ BUFFERS, 16, false }, 1);
	virtio_kick(&ring);
	assert_int_equal(d->broken, 1);
}

static int notify_once(const struct fake_ring *r)
{
	return io_write(r->v, IO_MMIO, VIRTIO_GPA(r->slot) + VIRTIO_MMIO_QUEUE_NOTIFY, 4, r->queue);
}

/* Whichever part is missing: nothing breaks, nothing is done; then once, as if it had been there.
 */
static void test_missing_memory(void **state)
{
	struct virtio *d = platform_virtio(vm, VIRTIO_SLOT_RNG);
	u64 a, b;

	(void)state;
	start(VIRTIO_SLOT_RNG, 1);
	for (u32 i = 0; i < 5; i++) {
		const u64 missing[] = { ring.avail_gpa + 2, ring.avail_gpa + 4 + 2 * i,
					ring.desc_gpa + 16 * i, ring.used_gpa + 4, BUFFERS + 8 };
		const struct fake_buffer buffer = { BUFFERS, 16, true };
		struct vring_used_elem e = { 0 };

		memset(fake_memory + BUFFERS, 0xee, 64);
		virtio_add(&ring, &buffer, 1);
		fake_missing = i == 3 ? ring.used_gpa : missing[i];
		fake_missing_size = i == 3 ? 64 : 2;
		for (u32 k = 0; k < 3; k++)
			assert_int_equal(notify_once(&ring), -EAGAIN);
		assert_int_equal(virtio_used(&ring, &e), 0);
		fake_missing_size = 0;
		assert_int_equal(notify_once(&ring), 0);
		assert_int_equal(virtio_used(&ring, &e), 1);
		assert_int_equal(e.len, 16);
		memcpy(&a, fake_memory + BUFFERS, 8);
		memcpy(&b, fake_memory + BUFFERS + 8, 8);
		assert_int_equal(b, a + 1);
		assert_int_equal(fake_memory[BUFFERS + 16], 0xee);
	}
	assert_int_equal(d->broken, 0);
	assert_int_equal(d->requests, 5);
}

static void test_no_random(void **state)
{
	(void)state;
	fake_vm_free(vm);
	fake_random_left = 0;
	vm = fake_vm(1);
	assert_null(platform_virtio(vm, VIRTIO_SLOT_RNG));
	assert_int_equal(virtio_get(vm->vcpus[0], VIRTIO_SLOT_RNG, 0), ~0u);
}

/* ---- Console ---- */

static void say(const char *text)
{
	const struct fake_buffer b = { BUFFERS, (u32)strlen(text), false };

	memcpy(fake_memory + BUFFERS, text, strlen(text));
	virtio_add(&ring, &b, 1);
	virtio_kick(&ring);
	assert_int_equal(virtio_used(&ring, NULL), 1);
}

static void test_console_output(void **state)
{
	char text[1001];

	(void)state;
	start(VIRTIO_SLOT_CONSOLE, 2);
	say("hvc ");
	out(vm->vcpus[0], PLATFORM_UART_PORT, 'u');
	say(" hvc");
	assert_memory_equal(said, "hvc u hvc", 9);
	for (u32 i = 0; i < 1000; i++)
		text[i] = (char)('a' + i % 26);
	text[1000] = 0;
	said_len = pieces = 0;
	say(text);
	assert_int_equal(said_len, 1000);
	assert_memory_equal(said, text, 1000);
	assert_int_equal(pieces, (1000 + 15) / 16);
}

static void typed(size_t n, size_t expect)
{
	assert_int_equal(uart_receive(platform_uart(vm), (const u8 *)"0123456789", n), expect);
}

/* Input goes to the one of the two that wrote last. */
static void test_console_input(void **state)
{
	const struct fake_buffer b[] = { { BUFFERS + 0x100, 4, true },
					 { BUFFERS + 0x200, 100, true } };
	struct vcpu *v = vm->vcpus[0];
	struct vring_used_elem e;

	(void)state;
	start(VIRTIO_SLOT_CONSOLE, 2);
	out(v, PLATFORM_UART_PORT, 'u');
	typed(1, 1);
	assert_int_equal(in(v, PLATFORM_UART_PORT), '0');
	say("prompt");
	typed(3, 0); /* no buffer */
	virtio_add(&input, &b[0], 1);
	virtio_add(&input, &b[1], 1);
	ready = 0;
	virtio_kick(&input);
	assert_int_equal(ready, 1);
	typed(10, 10);
	assert_int_equal(virtio_used(&input, &e), 2);
	assert_int_equal(e.len, 6);
	assert_memory_equal(fake_memory + BUFFERS + 0x100, "0123", 4);
	assert_memory_equal(fake_memory + BUFFERS + 0x200, "456789", 6);
	typed(1, 0);
	out(v, PLATFORM_UART_PORT, 'u');
	typed(1, 1);
	assert_int_equal(in(v, PLATFORM_UART_PORT), '0');
	say("again");
	typed(1, 0);
	virtio_set(v, VIRTIO_SLOT_CONSOLE, VIRTIO_MMIO_STATUS, 0); /* its driver is gone */
	typed(1, 1);
	assert_int_equal(in(v, PLATFORM_UART_PORT), '0');
}

#define NET(t)	cmocka_unit_test_setup_teardown(t, net_setup, net_teardown)
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		NET(test_address),	   NET(net_missing_memory), NET(test_unicast),
		NET(test_group),	   NET(test_drops),	    NET(test_receiver_goes),
		NET(test_address_twice),   NET(test_burst),	    TEST(test_random),
		TEST(test_missing_memory), TEST(test_no_random),    TEST(test_console_output),
		TEST(test_console_input),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
