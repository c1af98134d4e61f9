/* SPDX-License-Identifier: MIT */
#include "dev/virtio_net.h"

#include <asm-generic/errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include "lib/log.h"
#include "lib/string.h"

#define RECEIVE	  0 /* queues */
#define TRANSMIT  1
#define HEADER	  sizeof(struct virtio_net_hdr_v1)
#define FRAME_MIN 14   /* two addresses and a type */
#define FRAME_MAX 1518 /* 1500 bytes behind that, and a VLAN's tag */
#define GROUP	  1    /* in the first byte of an address */

struct virtio_net {
	struct virtio d;
	struct virtio_net_config config;
	char name[VIRTIO_NET_NAME];
	struct list node; /* among all cards */
	/* A frame for which the driver's memory is missing; those that come meanwhile are dropped.
	 */
	u32 held;
	u8 held_frame[FRAME_MAX];
};
_Static_assert(sizeof(struct virtio_net) <= VIRTIO_SIZE_MAX,
	       "struct virtio_net outgrew its frames");

static struct spinlock switch_lock = SPINLOCK_INIT(RANK_SWITCH);
static struct list cards = LIST_INIT(cards);
static u8 frame[FRAME_MAX]; /* on its way; under the lock */

/* The next frame that the card has to send: its length, 0 if there is none. *cost grows. */
static u32 take_frame(struct virtio_net *n, u64 *cost)
{
	struct virtio *d = &n->d;
	struct virtq *q = &d->q[TRANSMIT];
	u64 len = 0;

	spin_lock(&d->lock);
	while (!len && *cost < VIRTIO_SLICE && virtq_next(d, q)) {
		*cost += VIRTIO_REQUEST_COST;
		len = q->readable - MIN(q->readable, HEADER);
		if (len < FRAME_MIN || len > FRAME_MAX) {
			d->errors++;
			len = 0;
		} else if (!virtq_read(d, q, HEADER, frame, len)) {
			len = 0;
			break;
		}
		q->done = len;
		virtq_done(d, q, 0);
	}
	spin_unlock(&d->lock);
	*cost += len;
	return (u32)len;
}

/* What arrives is as it was sent: no checksum was left out, nothing was put together. */
static void receive(struct virtio_net *n, u32 len)
{
	static const struct virtio_net_hdr_v1 header = { .num_buffers = 1 };
	struct virtio *d = &n->d;
	struct virtq *q = &d->q[RECEIVE];

	spin_lock(&d->lock);
	if (READ_ONCE(d->vm->state) != VM_RUNNING || !virtq_next(d, q)) {
		d->dropped++;
	} else if (q->writable < HEADER + len) {
		d->errors++;
		virtq_done(d, q, 0);
	} else if (virtq_write(d, q, 0, &header, HEADER) && virtq_write(d, q, HEADER, frame, len)) {
		q->done = len;
		virtq_done(d, q, HEADER + len);
	}
	if (q->missing && !n->held) {
		memcpy(n->held_frame, frame, len);
		n->held = len;
	}
	spin_unlock(&d->lock);
}

static void net_retry(struct virtio *d)
{
	struct virtio_net *n = (struct virtio_net *)d;
	u32 len;

	spin_lock(&switch_lock);
	len = n->held;
	n->held = 0;
	memcpy(frame, n->held_frame, len);
	if (len)
		receive(n, len);
	spin_unlock(&switch_lock);
}

static bool is_for(const struct virtio_net *n, const u8 *mac)
{
	return mac[0] & GROUP || !memcmp(n->config.mac, mac, VIRTIO_NET_MAC);
}

static struct virtio_net *card_of(struct list *node)
{
	return list_entry(node, struct virtio_net, node);
}

static void deliver(const struct virtio_net *from, u32 len, u64 *cost)
{
	list_for_each(node, &cards) {
		struct virtio_net *to = card_of(node);

		if (to == from || strcmp(to->name, from->name) || !is_for(to, frame))
			continue;
		receive(to, len);
		*cost += VIRTIO_REQUEST_COST + len;
	}
}

/* The lock of the switches is given back after each frame: the others' turn. */
static bool net_notify(struct virtio *d, u32 queue)
{
	struct virtio_net *n = (struct virtio_net *)d;
	u64 cost = 0;
	u32 len;

	if (queue != TRANSMIT)
		return false; /* buffers to receive into: the next frame finds them */
	do {
		spin_lock(&switch_lock);
		len = take_frame(n, &cost);
		if (len)
			deliver(n, len, &cost);
		spin_unlock(&switch_lock);
	} while (len && cost < VIRTIO_SLICE);
	return cost >= VIRTIO_SLICE;
}

static bool net_destroy(struct virtio *d)
{
	struct virtio_net *n = (struct virtio_net *)d;

	spin_lock(&switch_lock);
	list_del(&n->node);
	spin_unlock(&switch_lock);
	return false;
}

static const struct virtio_kind kind = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.queues = 2,
	.notify = net_notify,
	.retry = net_retry,
	.destroy = net_destroy,
};

/* Onto the switch, unless its address is there already. */
static int join(struct virtio_net *n)
{
	int err = 0;

	spin_lock(&switch_lock);
	list_for_each(node, &cards)
		if (!strcmp(card_of(node)->name, n->name) && is_for(card_of(node), n->config.mac))
			err = -EEXIST;
	if (!err)
		list_add_tail(&cards, &n->node);
	spin_unlock(&switch_lock);
	if (err)
		log_err("vm %s: net: another VM on '%s' has its MAC address", n->d.vm->name,
			n->name);
	return err;
}

int virtio_net_create(struct vm *vm, const struct virtio_network *network, struct virtio **out)
{
	int err = virtio_create(vm, VIRTIO_SLOT_NET, &kind, out);
	struct virtio_net *n = (struct virtio_net *)*out;

	if (err)
		return err;
	list_init(&n->node);
	memcpy(n->config.mac, network->mac, VIRTIO_NET_MAC);
	memcpy(n->name, network->name, strlen(network->name) + 1);
	n->d.features = BIT(VIRTIO_NET_F_MAC);
	n->d.config = &n->config;
	n->d.config_size = sizeof(n->config.mac);
	return join(n);
}
