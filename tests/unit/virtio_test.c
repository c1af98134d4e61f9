/* SPDX-License-Identifier: MIT */
/* The virtio transport and its rings, with a disk behind them: registers, malformed rings,
 * requests. */
#include "tests/unit/virtio_fake.h"

#include <asm-generic/errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include "mm/backing.h"

#define SLOT	  VIRTIO_SLOT_BLK
#define SECTORS	  (8192 + 3) /* 4 MiB and more; the last page is not whole */
#define HEADER	  BUFFERS
#define STATUS	  (BUFFERS + 0x100)
#define DATA	  (BUFFERS + 0x1000)
#define NO_STATUS 0xee

static u8 file[SECTORS * 512], file_before[sizeof(file)];
static struct vm *vm;
static struct vcpu *v;
static struct fake_ring ring;
static struct virtio *disk;

static void use(struct vm *now)
{
	vm = now;
	v = vm->vcpus[0];
	disk = platform_virtio(vm, SLOT);
}

static void make(bool readonly)
{
	for (u32 i = 0; i < sizeof(file); i++)
		file[i] = (u8)(i / 512 * 7 + i);
	memcpy(file_before, file, sizeof(file));
	fake_devices.disk = (struct virtio_disk){
		.base = file, .size = sizeof(file), .id = "root.img", .readonly = readonly
	};
	vm = fake_vm(1);
	assert_non_null(vm);
	use(vm);
	fake_log_lines = 0;
	fake_readonly = FAKE_MEMORY;
}

static void start(u16 size)
{
	assert_true(virtio_begin(v, SLOT, 0));
	virtio_ring(&ring, v, SLOT, 0, size);
	virtio_driver_ok(v, SLOT);
}

static int setup(void **state)
{
	(void)state;
	make(false);
	start(16);
	return 0;
}

/* Whatever happened, the file is as it was and all memory comes back. */
static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	assert_int_equal(fake_frames, 0);
	assert_memory_equal(file, file_before, sizeof(file));
	fake_devices.disk.base = NULL;
	return 0;
}

static u32 reg(u32 offset)
{
	return virtio_get(v, SLOT, offset);
}

static void header(u32 type, u64 sector)
{
	struct virtio_blk_outhdr h = { .type = type, .sector = sector };

	memcpy(fake_memory + HEADER, &h, sizeof(h));
	fake_memory[STATUS] = NO_STATUS;
}

/* A request with all of its data in one buffer; the status, NO_STATUS if it did not come back. */
static u8 request(u32 type, u64 sector, u32 len, u32 *written)
{
	const struct fake_buffer buffers[] = { { HEADER, 16, false },
					       { DATA, len, type != VIRTIO_BLK_T_OUT },
					       { STATUS, 1, true } };
	const struct fake_buffer no_data[] = { buffers[0], buffers[2] };
	struct vring_used_elem e = { 0 };
	u16 head;

	header(type, sector);
	head = virtio_add(&ring, len ? buffers : no_data, len ? 3 : 2);
	virtio_kick(&ring);
	if (virtio_used(&ring, &e) != 1)
		return NO_STATUS;
	assert_int_equal(e.id, head);
	if (written)
		*written = e.len;
	return fake_memory[STATUS];
}

/* ---- Registers ---- */

static void test_identity(void **state)
{
	struct virtio_blk_config config;

	(void)state;
	assert_int_equal(reg(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(reg(VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(reg(VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_BLOCK);
	assert_int_equal(reg(VIRTIO_MMIO_CONFIG_GENERATION), 0);
	assert_int_equal(reg(VIRTIO_MMIO_SHM_LEN_LOW), ~0u);
	for (u32 i = 0; i < sizeof(config); i++)
		((u8 *)&config)[i] = (u8)mmio_get(v, VIRTIO_GPA(SLOT) + VIRTIO_MMIO_CONFIG + i, 1);
	assert_int_equal(config.capacity, SECTORS);
	assert_int_equal(config.seg_max, VIRTIO_QUEUE_MAX - 2);
	assert_int_equal(mmio_get(v, VIRTIO_GPA(SLOT) + VIRTIO_MMIO_CONFIG, 8), SECTORS);
	/* beyond the configuration's end, and half across it */
	assert_int_equal(mmio_get(v, VIRTIO_GPA(SLOT) + 0x1f8, 8), 0);
	assert_int_equal(mmio_get(v, VIRTIO_GPA(SLOT) + VIRTIO_MMIO_CONFIG + sizeof(config) - 1, 2),
			 0);
	/* registers are 32 bits */
	assert_int_equal(mmio_get(v, VIRTIO_GPA(SLOT), 1), 0);
	mmio_set(v, VIRTIO_GPA(SLOT) + VIRTIO_MMIO_STATUS, 1, 0);
	assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK);
}

static void test_features(void **state)
{
	u64 offered = 0;

	(void)state;
	for (u32 half = 2; half--;) {
		virtio_set(v, SLOT, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
		offered = offered << 32 | reg(VIRTIO_MMIO_DEVICE_FEATURES);
	}
	virtio_set(v, SLOT, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	assert_int_equal(offered, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_BLK_F_SEG_MAX) |
					  BIT(VIRTIO_BLK_F_FLUSH));
	assert_true(virtio_begin(v, SLOT, offered));
	for (u32 bit = 0; bit < 64; bit++)
		assert_int_equal(virtio_begin(v, SLOT, BIT(bit)), offered >> bit & 1);
	/* not of version 1 */
	virtio_set(v, SLOT, VIRTIO_MMIO_STATUS, 0);
	virtio_set(v, SLOT, VIRTIO_MMIO_STATUS, 11);
	assert_int_equal(reg(VIRTIO_MMIO_STATUS), 3);
	virtio_set(v, SLOT, VIRTIO_MMIO_STATUS, 7); /* no DRIVER_OK without FEATURES_OK */
	assert_int_equal(reg(VIRTIO_MMIO_STATUS), 3);
	/* what was agreed on stays */
	assert_true(virtio_begin(v, SLOT, 0));
	virtio_set(v, SLOT, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	virtio_set(v, SLOT, VIRTIO_MMIO_DRIVER_FEATURES, ~0u);
	assert_int_equal(disk->driver_features, BIT(VIRTIO_F_VERSION_1));
	/* only the device says that it needs a reset */
	virtio_set(v, SLOT, VIRTIO_MMIO_STATUS, 0x4f);
	assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0xf);
}

static void test_queue_setup(void **state)
{
	(void)state;
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_SEL, 0);
	assert_int_equal(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), VIRTIO_QUEUE_MAX);
	assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000); /* it is in use */
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_NUM, 8);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), NO_STATUS);
	for (u32 queue = 1; queue < 40; queue += 13) {
		virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_SEL, queue);
		assert_int_equal(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 1);
		assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
		virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
	}
	assert_int_equal(fake_log_lines, 0);
}

static void test_queue_setup_bad(void **state)
{
	static const u32 sizes[] = { 0, 3, 24, 256, 0x10000, 0x10010, ~0u };
	static const u32 regs[] = { VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
				    VIRTIO_MMIO_QUEUE_USED_LOW };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(sizes) + ARRAY_SIZE(regs); i++) {
		assert_true(virtio_begin(v, SLOT, 0));
		virtio_ring(&ring, v, SLOT, 0, 16);
		virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 0);
		if (i < ARRAY_SIZE(sizes))
			virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
		else
			virtio_set(v, SLOT, regs[i - ARRAY_SIZE(sizes)], 0x10001);
		virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 1);
		assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
		assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	}
	assert_int_equal(disk->broken, ARRAY_SIZE(sizes) + ARRAY_SIZE(regs));
	assert_int_equal(fake_log_lines, 8); /* and no more */
	start(16);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
}

static void test_interrupt(void **state)
{
	(void)state;
	apic_set(v, APIC_SVR, 0x1ff);
	mmio_set(v, IOAPIC_GPA, 4, 0x10 + 2 * VIRTIO_GSI(SLOT));
	mmio_set(v, IOAPIC_GPA + 0x10, 4, 0x51); /* an edge to vector 0x51 */
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(fake_take_eoi(v), 0x51);
	assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	request(VIRTIO_BLK_T_IN, 0, 512, NULL);
	assert_int_equal(fake_take(v), -1); /* not acknowledged: no new edge */
	virtio_set(v, SLOT, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	request(VIRTIO_BLK_T_IN, 0, 512, NULL);
	assert_int_equal(fake_take_eoi(v), 0x51);
	virtio_set(v, SLOT, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	ring.avail_ring->flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ring.desc_gpa = 0; /* a broken ring is a change of the configuration */
	ring.avail_ring->idx = 1000;
	virtio_kick(&ring);
	assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(fake_take_eoi(v), 0x51);
}

/* ---- Rings ---- */

static void no_change(void)
{
}
static void index_jumps(void)
{
	ring.avail_ring->idx = (u16)(ring.avail + 17);
}
static void head_outside(void)
{
	ring.avail_ring->ring[0] = 16;
}
static void next_outside(void)
{
	ring.desc[0].next = 999;
}
static void loop(void)
{
	ring.desc[1].next = 0;
}
static void self_loop(void)
{
	ring.desc[0].next = 0;
}
static void zero_length(void)
{
	ring.desc[1].len = 0;
}
static void indirect(void)
{
	ring.desc[0].flags |= VRING_DESC_F_INDIRECT;
}
static void readable_late(void)
{
	ring.desc[2].flags = 0;
}
static void no_status(void)
{
	ring.desc[1].flags = 0; /* the chain's end */
}
static void short_header(void)
{
	ring.desc[0].len = 15;
}
static void header_nowhere(void)
{
	ring.desc[0].addr = FAKE_MEMORY - 15;
}
static void data_nowhere(void)
{
	ring.desc[1].addr = ~0ull - 511;
}
static void data_readonly(void)
{
	fake_readonly = DATA;
}
static void used_readonly(void)
{
	fake_readonly = FAKE_MEMORY - PAGE_SIZE;
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 0);
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_USED_LOW, FAKE_MEMORY - PAGE_SIZE);
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 1);
}
static void move_ring(u32 reg_low)
{
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 0);
	virtio_set(v, SLOT, reg_low, 0);
	virtio_set(v, SLOT, reg_low + 4, 0xffffffff);
	virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 1);
}
static void desc_nowhere(void)
{
	move_ring(VIRTIO_MMIO_QUEUE_DESC_LOW);
}
static void avail_nowhere(void)
{
	move_ring(VIRTIO_MMIO_QUEUE_AVAIL_LOW);
}
static void used_nowhere(void)
{
	move_ring(VIRTIO_MMIO_QUEUE_USED_LOW);
}

/* Each with what the log says of it. The device stops until it is reset, then it works again. */
static const struct malformed {
	void (*make)(void);
	const char *says;
} malformed[] = {
	{ no_change, NULL },
	{ index_jumps, "available index jumps from 0 to 18" },
	{ head_outside, "descriptor 16, but there are 16" },
	{ next_outside, "descriptor 999, but there are 16" },
	{ loop, "descriptor 0 is to be read, behind one that is to be written" },
	{ self_loop, "the chain from descriptor 0 has a loop" },
	{ zero_length, "descriptor 1 has no length" },
	{ indirect, "descriptor 0 is indirect, which was not offered" },
	{ readable_late, "descriptor 2 is to be read, behind one that is to be written" },
	{ no_status, "528 bytes to be read, 0 to be written: no block request" },
	{ short_header, "15 bytes to be read, 513 to be written: no block request" },
	{ header_nowhere, "a buffer at gpa 0xffff1, length 16, is not in memory" },
	{ data_nowhere, "a buffer at gpa 0xfffffffffffffe00, length 512, is not in writable" },
	{ data_readonly, "a buffer at gpa 0x41000, length 512, is not in writable memory" },
	{ used_readonly, "the used ring at gpa 0xff000 is not in writable memory" },
	{ desc_nowhere, "no memory for descriptor 0 at gpa 0xffffffff00000000" },
	{ avail_nowhere, "no memory for the available ring at gpa 0xffffffff00000000" },
	{ used_nowhere, "the used ring at gpa 0xffffffff00000000 is not in writable memory" },
};

static void test_malformed(void **state)
{
	static const struct fake_buffer buffers[] = { { HEADER, 16, false },
						      { DATA, 512, true },
						      { STATUS, 1, true } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(malformed); i++) {
		const struct malformed *m = &malformed[i];
		u64 broken = disk->broken;

		disk->broken = 0; /* the log's limit does not count here */
		fake_log_lines = 0;
		fake_readonly = FAKE_MEMORY;
		start(16);
		header(VIRTIO_BLK_T_IN, 0);
		virtio_add(&ring, buffers, 3);
		m->make();
		virtio_kick(&ring);
		fake_readonly = FAKE_MEMORY;
		if (!m->says) {
			assert_int_equal(fake_memory[STATUS], VIRTIO_BLK_S_OK);
			assert_int_equal(fake_log_lines, 0);
			continue;
		}
		assert_int_equal(fake_log_lines, 1);
		assert_non_null(strstr(fake_log_line, "vm test: virtio-blk: queue 0: "));
		if (!strstr(fake_log_line, m->says))
			fail_msg("case %u says: %s", i, fake_log_line);
		assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(virtio_kick(&ring), 1); /* deaf now */
		assert_int_equal(virtio_used(&ring, NULL), 0);
		assert_int_equal(fake_log_lines, 1);
		disk->broken += broken;
	}
}

/* A chain that is as long as the ring is none too long. */
static void test_longest_chain(void **state)
{
	struct fake_buffer buffers[128] = { { HEADER, 16, false } };
	struct vring_used_elem e;

	(void)state;
	for (u32 size = 4; size <= 128; size *= 2) {
		start((u16)size);
		for (u32 i = 1; i < size - 1; i++)
			buffers[i] = (struct fake_buffer){ DATA + i * 512, 512, true };
		buffers[size - 1] = (struct fake_buffer){ STATUS, 1, true };
		header(VIRTIO_BLK_T_IN, 5);
		virtio_add(&ring, buffers, size);
		virtio_kick(&ring);
		assert_int_equal(virtio_used(&ring, &e), 1);
		assert_int_equal(e.len, (size - 2) * 512 + 1);
		assert_int_equal(fake_memory[STATUS], VIRTIO_BLK_S_OK);
		assert_memory_equal(fake_memory + DATA + 512, file + 5 * 512, (size - 2) * 512);
		/* one more, and it would have to loop */
		ring.desc[size - 1].flags |= VRING_DESC_F_NEXT;
		ring.desc[size - 1].next = (u16)(size - 1);
		ring.avail_ring->idx = ++ring.avail;
		ring.avail_ring->ring[1] = 0;
		virtio_kick(&ring);
		assert_int_equal(disk->q[0].nr, size);
		assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	}
}

/* The free-running indices wrap at 65536. */
static void test_wrap(void **state)
{
	(void)state;
	for (u32 i = 0; i < 70000; i++)
		assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(disk->requests, 70000);
}

/* What is checked is what is used: changes after the chain was taken don't matter. */
static void test_slices_copy_once(void **state)
{
	const u32 len = 512 * KIB;
	const struct fake_buffer buffers[] = { { HEADER, 16, false },
					       { DATA, len, true },
					       { STATUS, 1, true } };
	const u64 notify = VIRTIO_GPA(SLOT) + VIRTIO_MMIO_QUEUE_NOTIFY;
	u32 times = 0;

	(void)state;
	header(VIRTIO_BLK_T_IN, 0);
	virtio_add(&ring, buffers, 3);
	while (io_write(v, IO_MMIO, notify, 4, 0) == -EAGAIN) {
		times++;
		assert_int_equal(virtio_used(&ring, NULL), 0);
		memset(ring.desc, 0xff, 3 * sizeof(*ring.desc));
		memset(fake_memory + HEADER, 0xff, 16);
	}
	assert_in_range(times, len / VIRTIO_SLICE - 1, len / VIRTIO_SLICE + 2);
	assert_int_equal(virtio_used(&ring, NULL), 1);
	assert_int_equal(fake_memory[STATUS], VIRTIO_BLK_S_OK);
	assert_memory_equal(fake_memory + DATA, file, len);
}

static void test_reset_in_flight(void **state)
{
	const struct fake_buffer buffers[] = { { HEADER, 16, false },
					       { DATA, 512 * KIB, true },
					       { STATUS, 1, true } };
	const u64 notify = VIRTIO_GPA(SLOT) + VIRTIO_MMIO_QUEUE_NOTIFY;

	(void)state;
	for (u32 how = 0; how < 3; how++) {
		start(16);
		header(VIRTIO_BLK_T_IN, 0);
		virtio_add(&ring, buffers, 3);
		assert_int_equal(io_write(v, IO_MMIO, notify, 4, 0), -EAGAIN);
		if (how == 0)
			virtio_set(v, SLOT, VIRTIO_MMIO_STATUS, 0);
		else if (how == 1)
			vm->irqchip->reset(vm);
		else
			virtio_set(v, SLOT, VIRTIO_MMIO_QUEUE_READY, 0);
		assert_int_equal(io_write(v, IO_MMIO, notify, 4, 0), 0);
		assert_int_equal(virtio_used(&ring, NULL), 0);
		assert_int_equal(fake_memory[STATUS], NO_STATUS);
	}
	virtio_ring(&ring, v, SLOT, 0, 16); /* without a reset of the device: a new ring */
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
	start(16);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 1, 512, NULL), VIRTIO_BLK_S_OK);
	assert_memory_equal(fake_memory + DATA, file + 512, 512);
}

/* Many small requests in one kick are sliced as well. */
static void test_many_requests(void **state)
{
	static const struct fake_buffer buffers[] = { { HEADER, 16, false }, { STATUS, 1, true } };

	(void)state;
	start(128);
	header(VIRTIO_BLK_T_FLUSH, 0);
	virtio_add(&ring, buffers, 2);
	for (u32 i = 1; i < 128; i++) /* the same chain, 128 times */
		ring.avail_ring->ring[i] = 0;
	ring.avail_ring->idx = 128;
	assert_in_range(virtio_kick(&ring), 1, 2);
	assert_int_equal(virtio_used(&ring, NULL), 128);
}

/* ---- The disk ---- */

static void test_read_write(void **state)
{
	static u8 model[sizeof(file)];
	u32 written;

	(void)state;
	memcpy(model, file, sizeof(file));
	srand(3);
	for (u32 i = 0; i < 3000; i++) {
		u32 sectors = 1 + (u32)rand() % 40;
		u64 sector = (u64)rand() % (SECTORS - sectors + 1);
		u32 len = sectors * 512;

		if (rand() & 1) {
			memset(fake_memory + DATA, rand(), len);
			memcpy(model + sector * 512, fake_memory + DATA, len);
			assert_int_equal(request(VIRTIO_BLK_T_OUT, sector, len, &written), 0);
			assert_int_equal(written, 1);
		} else {
			assert_int_equal(request(VIRTIO_BLK_T_IN, sector, len, &written), 0);
			assert_int_equal(written, len + 1);
			assert_memory_equal(fake_memory + DATA, model + sector * 512, len);
		}
		if (i == 1500) { /* a restart of the guest keeps what it wrote */
			vm->irqchip->reset(vm);
			start(32);
		}
	}
	assert_int_equal(disk->errors, 0);
	assert_int_equal(disk->requests, 3000);
}

/* A disk with much in it is given back in steps, none of them large; the teardown sees the rest. */
static void test_destroyed_in_steps(void **state)
{
	u32 steps = 0, before = fake_frames;
	bool more;

	(void)state;
	for (u64 sector = 0; sector < SECTORS; sector += 8)
		assert_int_equal(request(VIRTIO_BLK_T_OUT, sector, 512, NULL), VIRTIO_BLK_S_OK);
	assert_true(fake_frames - before > SECTORS / 8);
	do {
		before = fake_frames;
		more = platform_destroy_step(vm);
		assert_true(before - fake_frames <= 514); /* 2 MiB, its table, the object */
		steps++;
	} while (more);
	assert_true(steps > SECTORS / 8 / 512);
}

#define DISKS 6

/* Disks that are cloned from each other, written, and go again: each has what it should. */
static void test_fork(void **state)
{
	static u8 model[DISKS][sizeof(file)];
	struct vm *vms[DISKS] = { vm };
	u32 forks = 0;

	(void)state;
	memcpy(model[0], file, sizeof(file));
	srand(5);
	for (u32 i = 0; i < 6000; i++) {
		u32 n = (u32)rand() % DISKS, to = (u32)rand() % DISKS;
		u32 len = 512 * (1 + (u32)rand() % 40);
		u64 at = (u64)rand() % (SECTORS - len / 512 + 1) * 512;

		if (!vms[n])
			continue;
		use(vms[n]);
		start(16);
		if (!vms[to]) {
			vms[to] = fake_vm(1);
			assert_int_equal(platform_fork(vms[n], vms[to]), 0);
			memcpy(model[to], model[n], sizeof(file));
			forks++;
		} else if (to != n && rand() % 4 == 0) {
			fake_vm_free(vms[to]);
			vms[to] = NULL;
		} else if (rand() & 1) {
			memset(fake_memory + DATA, rand(), len);
			memcpy(model[n] + at, fake_memory + DATA, len);
			assert_int_equal(request(VIRTIO_BLK_T_OUT, at / 512, len, NULL), 0);
		} else {
			assert_int_equal(request(VIRTIO_BLK_T_IN, at / 512, len, NULL), 0);
			assert_memory_equal(fake_memory + DATA, model[n] + at, len);
		}
	}
	assert_true(forks > 500);
	for (u32 n = 0; n < DISKS; n++)
		if (vms[n] && vms[n] != vm)
			fake_vm_free(vms[n]);
}

/* Of one that writes nothing there are as many as one likes; what was cloned and is gone leaves
 * nothing. */
static void test_many_forks(void **state)
{
	struct vm *clones[2 * BACKING_LINE_MAX];
	u32 frames = 0;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(clones); i++) {
		clones[i] = fake_vm(1);
		assert_int_equal(platform_fork(vm, clones[i]), 0);
	}
	for (u32 i = 0; i < ARRAY_SIZE(clones); i++)
		fake_vm_free(clones[i]);
	for (u32 i = 0; i < 3 * BACKING_LINE_MAX; i++) {
		assert_int_equal(request(VIRTIO_BLK_T_OUT, 9, 512, NULL), VIRTIO_BLK_S_OK);
		clones[0] = fake_vm(1);
		assert_int_equal(platform_fork(vm, clones[0]), 0);
		fake_vm_free(clones[0]);
		if (i > 2)
			assert_int_equal(fake_frames, frames);
		frames = fake_frames;
	}
}

/* With every number of frames until it works: nothing is lost, and the clone goes as a whole. */
static void test_fork_without_memory(void **state)
{
	struct vm *clone;
	u32 n = 0;
	int err;

	(void)state;
	memset(fake_memory + DATA, 0x5a, 512);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 9, 512, NULL), VIRTIO_BLK_S_OK);
	do {
		clone = fake_vm(1);
		fake_frames_left = n++;
		err = platform_fork(vm, clone);
		fake_frames_left = ~0u;
		if (err)
			fake_vm_free(clone);
		assert_int_equal(request(VIRTIO_BLK_T_IN, 9, 512, NULL), VIRTIO_BLK_S_OK);
		assert_int_equal(fake_memory[DATA + 511], 0x5a);
	} while (err);
	assert_int_equal(n, 3); /* a child for each */
	fake_vm_free(clone);
}

static void test_bounds(void **state)
{
	u32 written;

	(void)state;
	assert_int_equal(request(VIRTIO_BLK_T_IN, SECTORS - 1, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, SECTORS - 1, 1024, &written), VIRTIO_BLK_S_IOERR);
	assert_int_equal(written, 0);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, SECTORS, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, ~0ull, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 1ull << 55, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 100, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 0xfffffe00, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk->errors, 6);
	assert_int_equal(fake_log_lines, 0);
}

static void test_other_requests(void **state)
{
	u32 written;

	(void)state;
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, &written), VIRTIO_BLK_S_OK);
	assert_int_equal(written, 1);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 20, &written), VIRTIO_BLK_S_OK);
	assert_int_equal(written, 21);
	assert_memory_equal(fake_memory + DATA, "root.img\0\0\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 16, &written), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(written, 0);
	assert_int_equal(request(77, 0, 512, NULL), VIRTIO_BLK_S_UNSUPP);
}

static void test_readonly(void **state)
{
	(void)state;
	fake_vm_free(vm);
	make(true);
	assert_true(virtio_begin(v, SLOT, BIT(VIRTIO_BLK_F_RO)));
	start(16);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
	assert_memory_equal(fake_memory + DATA, file, 512);
}

/* With every number of frames until it works: an I/O error, never a half-made overlay. */
static void test_no_memory(void **state)
{
	u8 status = VIRTIO_BLK_S_IOERR;

	(void)state;
	for (u32 n = 0; status != VIRTIO_BLK_S_OK; n++) {
		assert_in_range(n, 0, 2); /* a table, which stays, and the page */
		fake_frames_left = n ? 1 : 0;
		memset(fake_memory + DATA, 0x5a, 512);
		status = request(VIRTIO_BLK_T_OUT, 9, 512, NULL);
		fake_frames_left = ~0u;
		assert_int_equal(request(VIRTIO_BLK_T_IN, 9, 512, NULL), VIRTIO_BLK_S_OK);
		assert_int_equal(fake_memory[DATA], status ? file[9 * 512] : 0x5a);
	}
	assert_int_equal(request(VIRTIO_BLK_T_IN, 8, 512, NULL), VIRTIO_BLK_S_OK);
	assert_memory_equal(fake_memory + DATA, file + 8 * 512, 512);
}

static void test_creation_fails(void **state)
{
	(void)state;
	fake_vm_free(vm);
	for (u32 n = 0;; n++) {
		fake_frames_left = n;
		vm = fake_vm(1);
		fake_frames_left = ~0u;
		if (vm)
			break;
		assert_int_equal(fake_frames, 0);
		assert_in_range(n, 0, 20);
	}
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity),
		TEST(test_features),
		TEST(test_queue_setup),
		TEST(test_queue_setup_bad),
		TEST(test_interrupt),
		TEST(test_malformed),
		TEST(test_longest_chain),
		TEST(test_wrap),
		TEST(test_slices_copy_once),
		TEST(test_reset_in_flight),
		TEST(test_many_requests),
		TEST(test_read_write),
		TEST(test_destroyed_in_steps),
		TEST(test_other_requests),
		TEST(test_readonly),
		TEST(test_bounds),
		TEST(test_other_requests),
		TEST(test_readonly),
		TEST(test_no_memory),
		TEST(test_creation_fails),
		TEST(test_fork),
		TEST(test_fork_without_memory),
		TEST(test_many_forks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
