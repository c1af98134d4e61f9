/* SPDX-License-Identifier: MIT */
#include "dev/virtio_rng.h"

#include <linux/virtio_ids.h>

#define WORDS	  32 /* at most for one request: a driver that wants more asks again */
#define BYTE_COST 16 /* RDRAND takes long */

/* One request: less than was asked for, if there is no more. Returns what it cost. */
static u32 serve(struct virtio *d, struct virtq *q)
{
	u64 words[WORDS];
	u32 n = 0;

	if (!q->writable) {
		virtio_broken(d, q, "a request for no random bytes");
		return 0;
	}
	while (n < WORDS && n * sizeof(*words) < q->writable && dev_random(&words[n]))
		n++;
	if (n < WORDS && n * sizeof(*words) < q->writable)
		d->errors++;
	q->done = MIN(n * sizeof(*words), q->writable);
	if (virtq_write(d, q, 0, words, q->done))
		virtq_done(d, q, (u32)q->done);
	return VIRTIO_REQUEST_COST + n * (u32)sizeof(*words) * BYTE_COST;
}

static bool rng_notify(struct virtio *d, u32 queue)
{
	return virtq_serve(d, &d->q[queue], serve);
}

static const struct virtio_kind kind = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.queues = 1,
	.notify = rng_notify,
};

int virtio_rng_create(struct vm *vm, struct virtio **out)
{
	return virtio_create(vm, VIRTIO_SLOT_RNG, &kind, out);
}
