/* SPDX-License-Identifier: MIT */
/* Intel 8259A data sheet, "Programming the 8259A"; ICW and OCW are its command words. */
#include "dev/pic.h"

#include <asm-generic/errno-base.h>

#define ICW1	    BIT(4) /* in the first port's data: an ICW1; else OCW3 or OCW2 */
#define ICW1_SINGLE BIT(1)
#define ICW1_ICW4   BIT(0)
#define ICW2_BASE   0xf8
#define ICW4_NESTED BIT(4)
#define ICW4_AUTO   BIT(1)

#define OCW2_LEVEL 7
enum ocw2 { /* bits 7:5: rotate, specific, end of interrupt */
	    ROTATE_AUTO_CLEAR,
	    EOI,
	    NOTHING,
	    EOI_SPECIFIC,
	    ROTATE_AUTO_SET,
	    EOI_ROTATE,
	    SET_PRIORITY,
	    EOI_ROTATE_SPECIFIC,
};

#define OCW3	      BIT(3)
#define OCW3_READ     BIT(1)
#define OCW3_READ_ISR BIT(0)
#define OCW3_POLL     BIT(2)
#define OCW3_MASK     BIT(6)
#define OCW3_MASK_ON  BIT(5)
#define POLL_THERE    BIT(7)

#define FIRST	 0
#define SECOND	 1
#define CASCADE	 2
#define SPURIOUS 7
#define ACKED	 16 /* shift, of pic.lines */

/* What ELCR can make level-triggered: not the timer, keyboard, cascade, clock and FPU. */
static const u8 elcr_mask[PIC_CHIPS] = { 0xf8, 0xde };

/* A chip's requests, without the cascade. */
static u8 requests(const struct pic *pic, u32 chip)
{
	u32 lines = __atomic_load_n(&pic->lines, __ATOMIC_SEQ_CST) >> chip * 8;

	return (u8)(lines & (pic->chip[chip].elcr | ~(lines >> ACKED)));
}

/* The input that a chip asks for with these requests, or -1. "Fully Nested Mode" and its variants.
 */
static int highest(const struct pic *pic, u32 chip, u8 irr)
{
	const struct pic_chip *c = &pic->chip[chip];
	u8 ready = irr & (u8)~c->imr, busy = c->isr;

	if (c->icw || !ready)
		return -1;
	if (c->special_mask)
		busy &= (u8)~c->imr;
	for (u32 i = 1; i <= 8; i++) {
		u32 input = (c->lowest + i) & 7;

		bool again = c->special_nested && chip == FIRST && input == CASCADE;

		if (busy & BIT(input) && !(again && ready & BIT(input)))
			return -1;
		if (ready & BIT(input))
			return (int)input;
	}
	return -1;
}

static int highest_second(const struct pic *pic)
{
	return highest(pic, SECOND, requests(pic, SECOND));
}

static u8 requests_first(const struct pic *pic, int second)
{
	return requests(pic, FIRST) | (second >= 0 ? BIT(CASCADE) : 0);
}

static void set_output(struct pic *pic, bool level)
{
	if (pic->output == level)
		return;
	__atomic_store_n(&pic->output, level, __ATOMIC_SEQ_CST);
	pic_output(pic->vm, level);
}

/* After every change. The masks are published before the lines are looked at: see pic_set_line. */
static void update(struct pic *pic)
{
	u32 open = ~(pic->chip[FIRST].imr | (u32)pic->chip[SECOND].imr << 8);

	__atomic_store_n(&pic->open, open, __ATOMIC_SEQ_CST);
	set_output(pic, highest(pic, FIRST, requests_first(pic, highest_second(pic))) >= 0);
}

/* Who changes a line sees that its input is open, or who opens it sees the line. */
void pic_set_line(struct pic *pic, u32 input, bool level)
{
	u32 bit, old;

	if (input >= PIC_INPUTS || input == CASCADE)
		return;
	bit = 1u << input;
	if (level)
		old = __atomic_fetch_or(&pic->lines, bit, __ATOMIC_SEQ_CST);
	else
		old = __atomic_fetch_and(&pic->lines, ~(bit | bit << ACKED), __ATOMIC_SEQ_CST);
	if (!(old & bit) != level || !(__atomic_load_n(&pic->open, __ATOMIC_SEQ_CST) & bit))
		return;
	spin_lock(&pic->lock);
	update(pic);
	spin_unlock(&pic->lock);
}

/* The edge of a line that is still there is used up until the next one. */
static void edge_acked(struct pic *pic, u32 bit)
{
	u32 old = __atomic_load_n(&pic->lines, __ATOMIC_SEQ_CST);

	while (old & bit && !__atomic_compare_exchange_n(&pic->lines, &old, old | bit << ACKED,
							 false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/* INTA at one chip, for the input that it asks for. */
static u8 take(struct pic *pic, u32 chip, int input)
{
	struct pic_chip *c = &pic->chip[chip];

	if (input < 0)
		return c->base | SPURIOUS;
	edge_acked(pic, 1u << input << chip * 8);
	if (!c->auto_eoi)
		c->isr |= (u8)BIT(input);
	else if (c->rotate_auto)
		c->lowest = (u8)input;
	return c->base | (u8)input;
}

u8 pic_ack(struct pic *pic)
{
	int second, first;
	u8 vector;

	spin_lock(&pic->lock);
	second = highest_second(pic); /* once: lines rise meanwhile */
	first = highest(pic, FIRST, requests_first(pic, second));
	vector = take(pic, FIRST, first);
	if (first == CASCADE)
		vector = take(pic, SECOND, second);
	set_output(pic, false); /* a request that remains is a new one for whoever takes it */
	update(pic);
	spin_unlock(&pic->lock);
	return vector;
}

static void write_icw1(struct pic *pic, u32 chip, u8 value)
{
	struct pic_chip *c = &pic->chip[chip];

	*c = (struct pic_chip){ .elcr = c->elcr,
				.base = c->base,
				.lowest = 7,
				.icw = 2,
				.single = value & ICW1_SINGLE,
				.icw4 = value & ICW1_ICW4 };
	/* "The edge sense circuit is reset": lines have to rise anew. */
	for (u32 input = chip * 8; input < chip * 8 + 8; input++)
		edge_acked(pic, 1u << input);
}

/* ICW3 only says how the chips are wired: to nothing else than each other. */
static void write_icw(struct pic_chip *c, u8 value)
{
	switch (c->icw) {
	case 2:
		c->base = value & ICW2_BASE;
		c->icw = !c->single ? 3 : c->icw4 ? 4 : 0;
		break;
	case 3:
		c->icw = c->icw4 ? 4 : 0;
		break;
	default:
		c->special_nested = value & ICW4_NESTED;
		c->auto_eoi = value & ICW4_AUTO;
		c->icw = 0;
		break;
	}
}

/* The input in service that has the highest priority; 8: none. */
static u32 in_service(const struct pic_chip *c)
{
	u8 busy = c->special_mask ? c->isr & (u8)~c->imr : c->isr;

	for (u32 i = 1; i <= 8; i++)
		if (busy & BIT((c->lowest + i) & 7))
			return (c->lowest + i) & 7;
	return 8;
}

static void write_ocw2(struct pic_chip *c, u8 value)
{
	enum ocw2 command = value >> 5;
	u32 input = value & OCW2_LEVEL;

	switch (command) {
	case EOI:
	case EOI_ROTATE:
		input = in_service(c);
		if (input == 8)
			return;
		/* fall through */
	case EOI_SPECIFIC:
	case EOI_ROTATE_SPECIFIC:
		c->isr &= (u8)~BIT(input);
		if (command == EOI || command == EOI_SPECIFIC)
			return;
		/* fall through */
	case SET_PRIORITY:
		c->lowest = (u8)input;
		break;
	case ROTATE_AUTO_CLEAR:
	case ROTATE_AUTO_SET:
		c->rotate_auto = command == ROTATE_AUTO_SET;
		break;
	case NOTHING:
		break;
	}
}

static void write_ocw3(struct pic_chip *c, u8 value)
{
	if (value & OCW3_MASK)
		c->special_mask = value & OCW3_MASK_ON;
	if (value & OCW3_READ)
		c->read_isr = value & OCW3_READ_ISR;
	c->poll = value & OCW3_POLL;
}

static u8 read_port(struct pic *pic, u32 chip, bool data)
{
	struct pic_chip *c = &pic->chip[chip];
	u8 irr = chip == FIRST ? requests_first(pic, highest_second(pic)) : requests(pic, SECOND);
	int input;

	if (c->poll) { /* "Poll Command" */
		c->poll = false;
		input = highest(pic, chip, irr);
		if (input < 0)
			return 0;
		take(pic, chip, input);
		update(pic);
		return (u8)(POLL_THERE | (u32)input);
	}
	if (data)
		return c->imr;
	return c->read_isr ? c->isr : irr;
}

static void write_port(struct pic *pic, u32 chip, bool data, u8 value)
{
	struct pic_chip *c = &pic->chip[chip];

	if (data && c->icw)
		write_icw(c, value);
	else if (data)
		c->imr = value;
	else if (value & ICW1)
		write_icw1(pic, chip, value);
	else if (value & OCW3)
		write_ocw3(c, value);
	else
		write_ocw2(c, value);
	update(pic);
}

/* The chips have 8 data lines: wider accesses are nobody's. */
static int port_read(struct pic *pic, u32 chip, u64 offset, u32 size, u64 *value)
{
	if (size != 1)
		return -ENXIO;
	spin_lock(&pic->lock);
	*value = read_port(pic, chip, offset);
	spin_unlock(&pic->lock);
	return 0;
}

static int port_write(struct pic *pic, u32 chip, u64 offset, u32 size, u64 value)
{
	if (size != 1)
		return -ENXIO;
	spin_lock(&pic->lock);
	write_port(pic, chip, offset, (u8)value);
	spin_unlock(&pic->lock);
	return 0;
}

static int first_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v;
	return port_read(dev, FIRST, offset, size, value);
}

static int first_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	return port_write(dev, FIRST, offset, size, value);
}

static int second_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v;
	return port_read(dev, SECOND, offset, size, value);
}

static int second_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	return port_write(dev, SECOND, offset, size, value);
}

static int elcr_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct pic *pic = dev;

	(void)v;
	if (size != 1)
		return -ENXIO;
	*value = READ_ONCE(pic->chip[offset].elcr);
	return 0;
}

static int elcr_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	struct pic *pic = dev;

	(void)v;
	if (size != 1)
		return -ENXIO;
	spin_lock(&pic->lock);
	pic->chip[offset].elcr = (u8)value & elcr_mask[offset];
	update(pic);
	spin_unlock(&pic->lock);
	return 0;
}

void pic_reset(struct pic *pic)
{
	static const struct pic_chip chip[PIC_CHIPS] = {
		{ .imr = 0xff, .base = 0x08, .lowest = 7 },
		{ .imr = 0xff, .base = 0x70, .lowest = 7 },
	};

	spin_lock(&pic->lock);
	for (u32 i = 0; i < PIC_CHIPS; i++)
		pic->chip[i] = chip[i];
	update(pic);
	spin_unlock(&pic->lock);
}

int pic_create(struct pic *pic, struct vm *vm)
{
	const struct io_region regions[] = {
		{ .name = "pic",
		  .base = 0x20,
		  .size = 2,
		  .read = first_read,
		  .write = first_write },
		{ .name = "pic 2",
		  .base = 0xa0,
		  .size = 2,
		  .read = second_read,
		  .write = second_write },
		{ .name = "elcr",
		  .base = 0x4d0,
		  .size = 2,
		  .read = elcr_read,
		  .write = elcr_write },
	};
	int err = 0;

	pic->vm = vm;
	spin_init(&pic->lock, RANK_IRQCHIP);
	pic_reset(pic);
	for (u32 i = 0; !err && i < ARRAY_SIZE(regions); i++) {
		struct io_region region = regions[i];

		region.dev = pic;
		err = io_register(vm, IO_PORT, &region);
	}
	return err;
}
