/* SPDX-License-Identifier: MIT */
#include "dev/virtio_blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include "lib/string.h"
#include "mm/backing.h"

struct virtio_blk {
	struct virtio d;
	struct virtio_disk disk;
	struct virtio_blk_config config;
	/* The request at hand: its header, copied once, and what comes of it. */
	struct virtio_blk_outhdr header;
	u64 length; /* bytes of data */
	u8 status;
	struct backing *overlay; /* what the guest has written; what is ZERO is in the file */
};
_Static_assert(sizeof(struct virtio_blk) <= VIRTIO_SIZE_MAX,
	       "struct virtio_blk outgrew its frames");

/*
 * The page that was written, NULL if none was; with `make` it is the VM's own, with what was there
 * before. Nothing of an overlay is mapped, and the lock keeps others out: COPIED is PRESENT.
 */
static u8 *overlay_page(struct virtio_blk *b, u64 page, bool make)
{
	u64 at = page << PAGE_SHIFT;
	struct backing *o = b->overlay;
	u8 level, piece;
	u64 *word = backing_find(&o, at, &level, &piece);
	u8 *there = backing_memory(*word);

	if (!make || (there && o == b->overlay))
		return there;
	if (backing_own(b->overlay, at) < 0)
		return NULL;
	backing_owned(b->overlay, at);
	word = backing_word(b->overlay, at, &level);
	if (!there)
		memcpy(backing_memory(*word), (const u8 *)b->disk.base + at,
		       MIN(PAGE_SIZE, b->disk.size - at));
	return backing_memory(*word);
}

static bool blk_destroy(struct virtio *d)
{
	return backing_put_step(&((struct virtio_blk *)d)->overlay);
}

/* "Device Operation": is it a request at all, and how will it end if nothing else fails? */
static u8 request_status(struct virtio_blk *b)
{
	u64 sectors = b->length / VIRTIO_BLK_SECTOR;

	switch (b->header.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		if (b->length % VIRTIO_BLK_SECTOR || b->header.sector > b->config.capacity ||
		    sectors > b->config.capacity - b->header.sector)
			return VIRTIO_BLK_S_IOERR;
		if (b->header.type == VIRTIO_BLK_T_OUT && b->disk.readonly)
			return VIRTIO_BLK_S_IOERR;
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_FLUSH: /* a write is where it belongs before it is done */
	case VIRTIO_BLK_T_GET_ID:
		return VIRTIO_BLK_S_OK;
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* A new request. False: it is none. */
static bool begin(struct virtio_blk *b, struct virtq *q)
{
	if (q->readable < sizeof(b->header) || !q->writable)
		return virtio_broken(&b->d, q,
				     "%lu bytes to be read, %lu to be written: no block request",
				     q->readable, q->writable);
	if (!virtq_read(&b->d, q, 0, &b->header, sizeof(b->header)))
		return false;
	q->fresh = false;
	switch (b->header.type) {
	case VIRTIO_BLK_T_IN:
		b->length = q->writable - 1;
		break;
	case VIRTIO_BLK_T_OUT:
		b->length = q->readable - sizeof(b->header);
		break;
	case VIRTIO_BLK_T_GET_ID:
		b->length = MIN(q->writable - 1, VIRTIO_BLK_ID_BYTES);
		break;
	default:
		b->length = 0;
	}
	b->status = request_status(b);
	return true;
}

/* Data at the progress that was made, at most up to the end of a page. False: broken. */
static bool transfer(struct virtio_blk *b, struct virtq *q, u32 *moved)
{
	u64 at = b->header.sector * VIRTIO_BLK_SECTOR + q->done;
	u32 offset = at % PAGE_SIZE, n = (u32)MIN(b->length - q->done, PAGE_SIZE - offset);
	bool writes = b->header.type == VIRTIO_BLK_T_OUT;
	char id[VIRTIO_BLK_ID_BYTES] = "";
	const u8 *from;
	u8 *own;

	*moved = n;
	if (b->header.type == VIRTIO_BLK_T_GET_ID) {
		memcpy(id, b->disk.id, strnlen(b->disk.id, sizeof(id)));
		*moved = (u32)b->length;
		return virtq_write(&b->d, q, 0, id, b->length);
	}
	own = overlay_page(b, at >> PAGE_SHIFT, writes);
	if (writes && !own) {
		b->status = VIRTIO_BLK_S_IOERR; /* no memory */
		*moved = 0;
		return true;
	}
	if (writes)
		return virtq_read(&b->d, q, sizeof(b->header) + q->done, own + offset, n);
	from = own ? own + offset : (const u8 *)b->disk.base + at;
	return virtq_write(&b->d, q, q->done, from, n);
}

/* The status is the last byte; what is written has no gap only if all data is there. */
static void finish(struct virtio_blk *b, struct virtq *q)
{
	u64 data = b->header.type == VIRTIO_BLK_T_OUT ? 0 : q->done, last = q->writable - 1;

	if (!virtq_write(&b->d, q, last, &b->status, sizeof(b->status)))
		return;
	if (b->status != VIRTIO_BLK_S_OK)
		b->d.errors++;
	virtq_done(&b->d, q, (u32)MIN(data == last ? data + 1 : data, ~0u));
}

/* What can be done at once of the request at hand; what it cost. */
static u32 step(struct virtio *d, struct virtq *q)
{
	struct virtio_blk *b = (struct virtio_blk *)d;
	u32 moved = 0;

	if (q->fresh && !begin(b, q))
		return 0;
	if (b->status == VIRTIO_BLK_S_OK && q->done < b->length) {
		if (!transfer(b, q, &moved))
			return 0;
		q->done += moved;
	}
	if (b->status != VIRTIO_BLK_S_OK || q->done == b->length)
		finish(b, q);
	return moved + VIRTIO_REQUEST_COST;
}

static bool blk_notify(struct virtio *d, u32 queue)
{
	return virtq_serve(d, &d->q[queue], step);
}

static const struct virtio_kind kind = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.queues = 1,
	.notify = blk_notify,
	.destroy = blk_destroy,
};

int virtio_blk_create(struct vm *vm, const struct virtio_disk *disk, struct virtio **out)
{
	struct backing *overlay;
	int err = backing_sparse(ALIGN_UP(disk->size, PAGE_SIZE), VM_NONE, &overlay);
	struct virtio_blk *b;

	if (err)
		return err;
	overlay->users = 1;
	err = virtio_create(vm, VIRTIO_SLOT_BLK, &kind, out);
	b = (struct virtio_blk *)*out;
	if (err) {
		while (backing_put_step(&overlay))
			;
		return err;
	}
	b->overlay = overlay;
	b->disk = *disk;
	b->config.capacity = disk->size / VIRTIO_BLK_SECTOR;
	b->config.seg_max = VIRTIO_QUEUE_MAX - 2; /* beside header and status */
	b->d.features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_FLUSH) |
			(disk->readonly ? BIT(VIRTIO_BLK_F_RO) : 0);
	b->d.config = &b->config;
	b->d.config_size = sizeof(b->config);
	return 0;
}

int virtio_blk_fork(struct virtio *from, struct virtio *to)
{
	struct backing **its = &((struct virtio_blk *)to)->overlay;

	while (backing_put_step(its))
		;
	return backing_fork(&((struct virtio_blk *)from)->overlay, VM_NONE, its);
}
