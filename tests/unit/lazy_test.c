/* SPDX-License-Identifier: MIT */
/* A VM's memory that is loaded by need from packed pieces: contents, hot set, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "lib/xxh64.h"
#include "mm/lazy.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define SIZE (2 * PIECE_SIZE + MIB) /* of the contents */
#define AT   (2 * MIB)		    /* where they begin in the VM */

static struct vm *const vm = &fake_vm;
static struct vcpu *const v = &fake_vcpu.v;
static struct lazy_image image;
static u8 file[6 * MIB] __attribute__((aligned(8)));
static u64 length;

static u8 content(u64 at)
{
	return (u8)(at * 7 + (at >> 12));
}

/* Blocks that are not packed, but for the second piece, which is all zeros. Hot: 2, 0. */
static void make_file(void)
{
	struct pieces_header *h = (void *)file;
	struct pieces_entry *e = (void *)(h + 1);
	u32 *hot = (u32 *)(e + 3);
	u8 *out = (u8 *)(hot + 2);

	*h = (struct pieces_header){
		.magic = PIECES_MAGIC, .size = SIZE, .nr_pieces = 3, .nr_hot = 2
	};
	hot[0] = 2;
	hot[1] = 0;
	for (u32 i = 0; i < 3; i++) {
		u64 end = MIN((i + 1) * PIECE_SIZE, SIZE);

		e[i] = (struct pieces_entry){ .offset = (u64)(out - file) };
		for (u64 at = i * PIECE_SIZE; i != 1 && at < end; at += PIECE_BLOCK) {
			struct pieces_block b = { .length = PIECE_BLOCK };

			for (u64 n = 0; n < PIECE_BLOCK; n++)
				out[sizeof(b) + n] = content(at + n);
			b.check = (u32)xxh64(out + sizeof(b), PIECE_BLOCK, at);
			memcpy(out, &b, sizeof(b));
			out += sizeof(b) + PIECE_BLOCK;
		}
		e[i].length = (u64)(out - file) - e[i].offset;
	}
	h->check = xxh64(h + 1, 3 * sizeof(*e) + 2 * sizeof(*hot),
			 xxh64(h, offsetof(struct pieces_header, check), 0));
	length = (u64)(out - file);
}

static struct backing *object(void)
{
	return vm_slot(vm, GPA(0))->backing;
}

/* A VM whose memory has 0xaa where nobody has cleared it. */
static void open_image(u64 memory)
{
	make_file();
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), memory, 0), 0);
	assert_int_equal(guest_fill(vm, GPA(0), 0xaa, memory), 0);
	assert_null(lazy_open(&image, "memory.lz", file, length));
	lazy_attach(&image, object(), AT);
	vm_clear_memory(vm);
	lazy_restart(&image);
	vm->state = VM_RUNNING;
	fake_current = v;
	v->rip = 0x1000;
}

static void end(void)
{
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

static u8 state_at(u64 offset)
{
	u8 level;

	return backing_state(*backing_word(object(), offset, &level));
}

/* As a vCPU does it that meets what is missing. False: its VM was stopped. */
static bool read_byte(u64 gpa, u8 *value)
{
	int err;

	fake_stop_text[0] = '\0';
	while ((err = guest_read(vm, GPA(gpa), value, 1)) == -EAGAIN && !fake_stop_text[0])
		while (v->activity && memory_wait_step(v))
			;
	return !err;
}

static void contents(void **state)
{
	static const u64 offsets[] = { 0,
				       1,
				       0xffff,
				       0x10000,
				       PIECE_SIZE - 1,
				       PIECE_SIZE,
				       2 * PIECE_SIZE,
				       SIZE - 1,
				       SIZE,
				       3 * PIECE_SIZE - 1 };
	u8 byte;

	(void)state;
	open_image(16 * MIB);
	vm_clear_ahead(vm); /* what is missing is left alone */
	for (u64 at = 0; at < 16 * MIB; at += EXTENT_SIZE)
		assert_int_equal(state_at(at), at < AT || at >= AT + 3 * PIECE_SIZE
						       ? BACKING_PRESENT
						       : BACKING_MISSING);
	for (u32 i = 0; i < ARRAY_SIZE(offsets); i++) {
		u64 at = offsets[i];
		bool zero = at >= SIZE || at / PIECE_SIZE == 1;

		assert_true(read_byte(AT + at, &byte));
		assert_int_equal(byte, zero ? 0 : content(at));
		assert_int_equal(image.fetched, MIN(at / PIECE_SIZE, 2) + 1);
	}
	assert_true(read_byte(AT - 1, &byte));
	assert_int_equal(byte, 0);
	assert_int_equal(image.order[0] | image.order[1] << 4 | image.order[2] << 8, 0x210);
	assert_ptr_equal(lazy_image_of(object()), &image);
	/* A reset: it is loaded anew, also by a loader that writes there. */
	vm->state = VM_STOPPED;
	vm_clear_memory(vm);
	lazy_restart(&image);
	byte = 1;
	assert_int_equal(guest_write(vm, GPA(AT + 5), &byte, 1), 0);
	assert_int_equal(image.fetched, 1);
	assert_int_equal(guest_read(vm, GPA(AT + 6), &byte, 1), 0);
	assert_int_equal(byte, content(6));
	end();
}

static void hot_set(void **state)
{
	u32 calls = 0;

	(void)state;
	open_image(16 * MIB);
	assert_true(lazy_ahead(&image));
	assert_int_equal(state_at(AT + 2 * PIECE_SIZE), BACKING_FETCHING);
	assert_int_equal(object()->users, 2);
	lazy_restart(&image); /* given up in the middle */
	assert_int_equal(object()->users, 1);
	assert_int_equal(state_at(AT + 2 * PIECE_SIZE), BACKING_MISSING);
	while (lazy_ahead(&image))
		calls++;
	assert_int_equal(calls, (PIECE_SIZE + MIB) / PIECE_BLOCK); /* a block each */
	assert_int_equal(image.ahead, 2);
	assert_int_equal(state_at(AT), BACKING_PRESENT);
	assert_int_equal(state_at(AT + PIECE_SIZE), BACKING_MISSING);
	assert_int_equal(state_at(AT + 2 * PIECE_SIZE), BACKING_PRESENT);
	assert_int_equal(image.order[0], 2);
	end();
}

/* The VM that needs the piece stops, and says what of which file; the rest is there. */
static void damage(void **state)
{
	struct pieces_entry *e = (void *)(file + sizeof(struct pieces_header));
	u8 byte;

	(void)state;
	open_image(16 * MIB);
	file[e[2].offset + 70000] ^= 4;
	while (lazy_ahead(&image))
		;
	assert_int_equal(image.ahead, 1);
	assert_int_equal(image.damaged, 1);
	assert_true(read_byte(AT, &byte));
	assert_false(read_byte(AT + 2 * PIECE_SIZE, &byte));
	assert_string_equal(fake_stop_text, "vCPU 0 reads gpa 0x600000 (rip 0x1000): memory.lz");
	assert_int_equal(image.damaged, 2);
	assert_int_equal(state_at(AT + 2 * PIECE_SIZE), BACKING_MISSING);
	assert_int_equal(object()->users, 1);
	end();
	file[0] = 0;
	assert_string_equal(lazy_open(&image, "memory.lz", file, length),
			    "no file of packed pieces");
}

/* An object that ends within the last piece gets nothing of what is behind it. */
static void cut_short(void **state)
{
	u8 byte;

	(void)state;
	open_image(AT + 2 * PIECE_SIZE + MIB / 2);
	assert_false(read_byte(AT + 2 * PIECE_SIZE, &byte));
	assert_int_equal(image.damaged, 1);
	end();
	open_image(AT + SIZE);
	assert_true(read_byte(AT + SIZE - 1, &byte));
	assert_int_equal(byte, content(SIZE - 1));
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(contents),
		cmocka_unit_test(hot_set),
		cmocka_unit_test(damage),
		cmocka_unit_test(cut_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
