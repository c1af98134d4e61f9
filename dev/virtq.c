/* SPDX-License-Identifier: MIT */
/*
 * Split virtqueues (virtio 1.2, "Split Virtqueues"). A ring is read forwards, each piece once, into
 * memory that the guest does not see: what was checked is what is used.
 */
#include "dev/virtio.h"

#include <asm-generic/errno.h>
#include "virt/guestmem.h"

#define AVAIL_IDX     offsetof(struct vring_avail, idx)
#define AVAIL_ENTRY   offsetof(struct vring_avail, ring)
#define USED_IDX      offsetof(struct vring_used, idx)
#define USED_ENTRY    offsetof(struct vring_used, ring)
#define RING_AT(q, i) ((i) & ((q)->size - 1u))

/* What is wrong with descriptor `at`, which is chain[nr]; NULL: nothing. */
static const char *descriptor_fault(const struct virtq *q, const struct vring_desc *s)
{
	if (s->flags & VRING_DESC_F_INDIRECT)
		return "is indirect, which was not offered";
	if (!s->len)
		return "has no length";
	if (!(s->flags & VRING_DESC_F_WRITE) && q->writable)
		return "is to be read, behind one that is to be written";
	return NULL;
}

/* Not broken: the same again when the memory is there. */
static bool wait_for_memory(struct virtq *q)
{
	q->missing = true;
	return false;
}

static bool fetch_descriptor(struct virtio *d, struct virtq *q, u16 at)
{
	struct vring_desc *s = &q->chain[q->nr];
	const char *fault;
	int err;

	if (at >= q->size)
		return virtio_broken(d, q, "descriptor %u, but there are %u", at, q->size);
	if (q->nr == q->size)
		return virtio_broken(d, q, "the chain from descriptor %u has a loop", q->head);
	err = guest_read(d->vm, GPA(q->desc + at * sizeof(*s)), s, sizeof(*s));
	if (err == -EAGAIN)
		return wait_for_memory(q);
	if (err)
		return virtio_broken(d, q, "no memory for descriptor %u at gpa %#lx", at,
				     q->desc + at * sizeof(*s));
	fault = descriptor_fault(q, s);
	if (fault)
		return virtio_broken(d, q, "descriptor %u %s", at, fault);
	q->nr++;
	if (s->flags & VRING_DESC_F_WRITE) {
		q->writable += s->len;
	} else {
		q->readable += s->len;
		q->nr_readable++;
	}
	return true;
}

static bool fetch_chain(struct virtio *d, struct virtq *q)
{
	u16 at = q->head;

	q->nr = q->nr_readable = 0;
	q->readable = q->writable = 0;
	do {
		if (!fetch_descriptor(d, q, at))
			return false;
		at = q->chain[q->nr - 1].next;
	} while (q->chain[q->nr - 1].flags & VRING_DESC_F_NEXT);
	q->done = MIN(q->resume, q->readable);
	q->resume = 0;
	q->busy = q->fresh = true;
	d->requests++;
	return true;
}

static bool no_available(struct virtio *d, struct virtq *q, int err)
{
	if (err == -EAGAIN)
		return wait_for_memory(q);
	return virtio_broken(d, q, "no memory for the available ring at gpa %#lx", q->avail);
}

/* Of the chain that is done next. */
static gpa_t used_elem(const struct virtq *q)
{
	return GPA(q->used + USED_ENTRY +
		   RING_AT(q, q->next_used) * sizeof(struct vring_used_elem));
}

bool virtq_next(struct virtio *d, struct virtq *q)
{
	u16 index, waiting;
	int err;

	if (!virtio_live(d) || !q->ready || q->missing)
		return false;
	if (q->busy)
		return true;
	err = guest_read(d->vm, GPA(q->avail + AVAIL_IDX), &index, sizeof(index));
	if (err)
		return no_available(d, q, err);
	waiting = index - q->next_avail;
	if (!waiting)
		return false;
	if (waiting > q->size)
		return virtio_broken(d, q, "available index jumps from %u to %u", q->next_avail,
				     index);
	err = guest_read(
		d->vm,
		GPA(q->avail + AVAIL_ENTRY + RING_AT(q, q->next_avail) * sizeof(q->next_avail)),
		&q->head, sizeof(q->head));
	if (err)
		return no_available(d, q, err);
	/* When the chain is done it is too late to wait: nothing is done twice. */
	if (guest_touch(d->vm, used_elem(q), sizeof(struct vring_used_elem)) == -EAGAIN ||
	    guest_touch(d->vm, GPA(q->used + USED_IDX), sizeof(index)) == -EAGAIN)
		return wait_for_memory(q);
	if (!fetch_chain(d, q))
		return false;
	q->next_avail++;
	return true;
}

bool virtq_serve(struct virtio *d, struct virtq *q, u32 (*serve)(struct virtio *d, struct virtq *q))
{
	u64 cost = 0;
	bool more;

	spin_lock(&d->lock);
	while ((more = virtq_next(d, q)) && cost < VIRTIO_SLICE)
		cost += serve(d, q);
	spin_unlock(&d->lock);
	return more;
}

/* Walk the part of the chain that is [first, end). Exactly one of `to` and `from` is there. */
static bool copy(struct virtio *d, struct virtq *q, u32 first, u64 offset, u8 *to, const u8 *from,
		 size_t len)
{
	for (u32 i = first; len && i < q->nr; i++) {
		const struct vring_desc *s = &q->chain[i];
		size_t n;
		int err;

		if (offset >= s->len) {
			offset -= s->len;
			continue;
		}
		n = MIN(len, s->len - offset);
		err = to ? guest_read(d->vm, GPA(s->addr + offset), to, n)
			 : guest_write(d->vm, GPA(s->addr + offset), from, n);
		if (err == -EAGAIN)
			return wait_for_memory(q);
		if (err)
			return virtio_broken(d, q, "a buffer at gpa %#lx, length %u, is not %s",
					     (u64)s->addr, s->len,
					     to ? "in memory" : "in writable memory");
		to = to ? to + n : NULL;
		from = from ? from + n : NULL;
		len -= n;
		offset = 0;
	}
	return true;
}

bool virtq_read(struct virtio *d, struct virtq *q, u64 offset, void *buf, size_t len)
{
	return copy(d, q, 0, offset, buf, NULL, len);
}

bool virtq_write(struct virtio *d, struct virtq *q, u64 offset, const void *buf, size_t len)
{
	return copy(d, q, q->nr_readable, offset, NULL, buf, len);
}

void virtq_done(struct virtio *d, struct virtq *q, u32 written)
{
	const struct vring_used_elem elem = { .id = q->head, .len = written };
	u16 flags, index = q->next_used + 1;

	q->busy = false;
	d->bytes += q->done;
	if (guest_write(d->vm, used_elem(q), &elem, sizeof(elem)) ||
	    guest_write(d->vm, GPA(q->used + USED_IDX), &index, sizeof(index))) {
		virtio_broken(d, q, "the used ring at gpa %#lx is not in writable memory", q->used);
		return;
	}
	q->next_used = index;
	/* The driver allows interrupts, then looks at the index: one of the two sees the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (guest_read(d->vm, GPA(q->avail), &flags, sizeof(flags)))
		virtio_broken(d, q, "no memory for the available ring at gpa %#lx", q->avail);
	else if (!(flags & VRING_AVAIL_F_NO_INTERRUPT))
		virtio_interrupt(d, VIRTIO_MMIO_INT_VRING);
}
