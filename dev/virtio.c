/* SPDX-License-Identifier: MIT */
/* Virtio 1.2, "MMIO Device Register Layout", "Device Initialization". */
#include "dev/virtio.h"

#include <asm-generic/errno.h>
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/state.h"

#define MAGIC	     0x74726976 /* "virt" */
#define VERSION	     2
#define VENDOR	     0x4c425243 /* "CRBL" */
#define NO_REGION    ~0u	/* length of a shared memory region that is not there */
#define BROKEN_LINES 8		/* a guest that does it again and again gets no more of the log */

bool virtio_live(const struct virtio *d)
{
	return !d->held && (d->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET |
					 VIRTIO_CONFIG_S_FAILED)) == VIRTIO_CONFIG_S_DRIVER_OK;
}

/* The wire is high while a bit of the status is: a new bit beside an old one makes no edge, but the
 * driver looks at its rings after it has acknowledged. */
static void set_interrupts(struct virtio *d, u32 status)
{
	bool changes = !status != !d->interrupt_status;

	d->interrupt_status = status;
	if (changes)
		vm_irq_line(d->vm, VIRTIO_GSI(d->slot), status);
}

void virtio_interrupt(struct virtio *d, u32 why)
{
	set_interrupts(d, d->interrupt_status | why);
}

bool virtio_broken(struct virtio *d, const struct virtq *q, const char *fmt, ...)
{
	char what[112];
	va_list ap;

	va_start(ap, fmt);
	fmt_vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (d->broken++ < BROKEN_LINES)
		log_warn("vm %s: %s: queue %u: %s", d->vm->name, d->kind->name, (u32)(q - d->q),
			 what);
	d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_interrupt(d, VIRTIO_MMIO_INT_CONFIG);
	return false;
}

static u64 offered(const struct virtio *d)
{
	return d->features | BIT(VIRTIO_F_VERSION_1);
}

static struct virtq *selected(struct virtio *d)
{
	return d->queue_sel < d->kind->queues ? &d->q[d->queue_sel] : NULL;
}

static void reset(struct virtio *d)
{
	d->status = 0;
	d->driver_features = 0;
	d->features_sel = d->driver_features_sel = d->queue_sel = 0;
	for (u32 i = 0; i < VIRTIO_QUEUES; i++)
		memset(&d->q[i], 0, offsetof(struct virtq, chain));
	set_interrupts(d, 0);
}

/*
 * Bits are only ever added, but for a reset. FEATURES_OK stays away, and the driver sees that, if
 * it wants what was not offered or is not of virtio 1.
 */
static void write_status(struct virtio *d, u8 value)
{
	u8 new = value & ~d->status;

	if (!value) {
		reset(d);
		return;
	}
	if (new &VIRTIO_CONFIG_S_FEATURES_OK &&
	    (d->driver_features & ~offered(d) || !(d->driver_features & BIT(VIRTIO_F_VERSION_1))))
		new &= (u8)~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((d->status | new) & VIRTIO_CONFIG_S_FEATURES_OK))
		new &= (u8)~VIRTIO_CONFIG_S_DRIVER_OK;
	d->status |= new &(u8)~VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void write_features(struct virtio *d, u32 value)
{
	u32 shift = d->driver_features_sel * 32;

	if (d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (d->driver_features_sel < 2)
		d->driver_features =
			(d->driver_features & ~(0xffffffffull << shift)) | (u64)value << shift;
}

/* "Virtqueues": sizes and alignments. */
static void write_ready(struct virtio *d, struct virtq *q, bool ready)
{
	if (!ready) {
		q->ready = q->busy = false;
		q->next_avail = q->next_used = 0;
		q->resume = 0;
	} else if (!q->size || q->size & (q->size - 1) || q->size > VIRTIO_QUEUE_MAX) {
		virtio_broken(d, q, "its size %u is not a power of two up to %u", q->size,
			      VIRTIO_QUEUE_MAX);
	} else if (q->desc % VRING_DESC_ALIGN_SIZE || q->avail % VRING_AVAIL_ALIGN_SIZE ||
		   q->used % VRING_USED_ALIGN_SIZE) {
		virtio_broken(d, q, "not aligned: descriptors %#lx, available %#lx, used %#lx",
			      q->desc, q->avail, q->used);
	} else {
		q->ready = true;
	}
}

static const struct state_field fields[] = {
	STATE_FIELD(struct virtio, driver_features, STATE_ANY),
	STATE_RUN(struct virtio, features_sel, queue_sel, STATE_ANY),
	STATE_RUN(struct virtio, interrupt_status, status, STATE_ANY),
};

static const struct state_field queue_fields[] = {
	STATE_RUN(struct virtq, desc, used, STATE_ANY),
	STATE_FIELD(struct virtq, size, STATE_MAX, VIRTIO_QUEUE_MAX),
	STATE_FIELD(struct virtq, ready, STATE_MAX, 1),
	STATE_RUN(struct virtq, next_avail, next_used, STATE_ANY),
	STATE_FIELD(struct virtq, resume, STATE_ANY),
};

/* A chain that is at hand is taken out of the ring again, later. */
void virtio_state(struct virtio *d, struct state *s)
{
	STATE_PART(s, d->kind->name, 0, d, fields);
	for (u32 i = 0; i < d->kind->queues; i++) {
		struct virtq *q = &d->q[i];

		if (q->busy) {
			q->busy = false;
			q->next_avail--;
			q->resume = q->done;
		}
		STATE_PART(s, "queue", i, q, queue_fields);
	}
}

static void set_half(u64 *value, u32 high, u32 half)
{
	u32 shift = high ? 32 : 0;

	*value = (*value & ~(0xffffffffull << shift)) | (u64)half << shift;
}

/* One of the registers of the queue that is selected. While it is ready only that can change. */
static void write_queue(struct virtio *d, u64 offset, u32 value)
{
	struct virtq *q = selected(d);

	if (!q || (q->ready && offset != VIRTIO_MMIO_QUEUE_READY))
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->size = (u16)MIN(value, 0xffffu);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		write_ready(d, q, value & 1);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&q->desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&q->avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&q->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

static void write_reg(struct virtio *d, u64 offset, u32 value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		d->features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		d->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_features(d, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		d->queue_sel = value;
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		set_interrupts(d, d->interrupt_status & ~value);
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(d, (u8)value);
		break;
	default:
		write_queue(d, offset, value);
	}
}

static u32 read_reg(struct virtio *d, u64 offset)
{
	const struct virtq *q = selected(d);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return d->kind->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return d->features_sel < 2 ? (u32)(offered(d) >> d->features_sel * 32) : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? VIRTIO_QUEUE_MAX : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q && q->ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return d->interrupt_status;
	case VIRTIO_MMIO_STATUS:
		return d->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
		return NO_REGION;
	default: /* also the generation of the configuration, which never changes */
		return 0;
	}
}

/* Registers are 32 bits wide and take nothing else; the configuration is bytes. */
static int mmio_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct virtio *d = dev;

	(void)v;
	*value = 0;
	spin_lock(&d->lock);
	if (offset < VIRTIO_MMIO_CONFIG)
		*value = size == 4 ? read_reg(d, offset) : 0;
	else if (offset - VIRTIO_MMIO_CONFIG + size <= d->config_size)
		memcpy(value, (const u8 *)d->config + offset - VIRTIO_MMIO_CONFIG, size);
	spin_unlock(&d->lock);
	return 0;
}

static bool set_missing(struct virtio *d, u32 queue, bool missing)
{
	bool was;

	spin_lock(&d->lock);
	was = d->q[queue].missing;
	d->q[queue].missing = missing;
	spin_unlock(&d->lock);
	return was;
}

/* If it met missing memory, this vCPU waits for that, and then comes here again. */
static bool notify(struct virtio *d, u32 queue)
{
	bool again;

	set_missing(d, queue, false);
	again = d->kind->notify(d, queue);
	return set_missing(d, queue, false) || again;
}

void virtio_retry(struct virtio *d)
{
	if (!d->kind->retry)
		return;
	for (u32 i = 0; i < d->kind->queues; i++)
		set_missing(d, i, false);
	d->kind->retry(d);
}

static int mmio_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	struct virtio *d = dev;

	(void)v;
	if (size != 4)
		return 0;
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY)
		return value < d->kind->queues && notify(d, (u32)value) ? -EAGAIN : 0;
	spin_lock(&d->lock);
	write_reg(d, offset, (u32)value);
	spin_unlock(&d->lock);
	return 0;
}

void virtio_reset(struct virtio *d)
{
	spin_lock(&d->lock);
	reset(d);
	spin_unlock(&d->lock);
}

int virtio_create(struct vm *vm, enum virtio_slot slot, const struct virtio_kind *kind,
		  struct virtio **out)
{
	struct io_region region = { .name = kind->name,
				    .base = VIRTIO_GPA(slot),
				    .size = VIRTIO_REGION_SIZE,
				    .read = mmio_read,
				    .write = mmio_write };
	pfn_t f = frame_alloc_order(VIRTIO_ORDER, FRAME_HEAP, vm->id);
	struct virtio *d;
	int err;

	if (!pfn_valid(f))
		return -ENOMEM;
	d = pfn_ptr(f);
	memset(d, 0, VIRTIO_SIZE_MAX);
	d->vm = vm;
	d->slot = slot;
	d->kind = kind;
	spin_init(&d->lock, RANK_VIRTIO);
	region.dev = d;
	err = io_register(vm, IO_MMIO, &region);
	if (err)
		frame_free_order(f, VIRTIO_ORDER, FRAME_HEAP, vm->id);
	else
		*out = d;
	return err;
}

bool virtio_destroy_step(struct virtio *d)
{
	if (d->kind->destroy && d->kind->destroy(d))
		return true;
	frame_free_order(hpa_pfn(ptr_hpa(d)), VIRTIO_ORDER, FRAME_HEAP, d->vm->id);
	return false;
}
