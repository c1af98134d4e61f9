/* SPDX-License-Identifier: MIT */
#include "dev/virtio_console.h"

#include <linux/virtio_ids.h>

#define RECEIVE	 0 /* queues */
#define TRANSMIT 1
#define PIECE	 UART_FIFO_SIZE /* at a time: the line that it goes to may be a slow one */

struct virtio_console {
	struct virtio d;
	struct uart *uart;
};

static bool transmit(struct virtio_console *c)
{
	struct virtio *d = &c->d;
	struct virtq *q = &d->q[TRANSMIT];
	u8 piece[PIECE];
	bool more;
	u32 n;

	spin_lock(&d->lock);
	if (virtq_next(d, q)) {
		n = (u32)MIN(q->readable - q->done, PIECE);
		if (virtq_read(d, q, q->done, piece, n)) {
			q->done += n;
			uart_write_second(c->uart, piece, n);
			if (q->done == q->readable)
				virtq_done(d, q, 0);
		}
	}
	more = virtq_next(d, q);
	spin_unlock(&d->lock);
	return more;
}

static bool console_notify(struct virtio *d, u32 queue)
{
	struct virtio_console *c = (struct virtio_console *)d;

	if (queue == TRANSMIT)
		return transmit(c);
	if (c->uart->input_ready) /* there are buffers again */
		c->uart->input_ready(c->uart->arg);
	return false;
}

static void console_retry(struct virtio *d)
{
	console_notify(d, RECEIVE);
}

/* The UART's second receiver: see there. */
static bool receive(void *arg, const u8 *bytes, size_t n, size_t *taken)
{
	struct virtio_console *c = arg;
	struct virtio *d = &c->d;
	struct virtq *q = &d->q[RECEIVE];
	bool live;

	*taken = 0;
	spin_lock(&d->lock);
	while (*taken < n && virtq_next(d, q)) {
		q->done = MIN(n - *taken, q->writable);
		if (!virtq_write(d, q, 0, bytes + *taken, q->done))
			break;
		*taken += q->done;
		virtq_done(d, q, (u32)q->done);
	}
	live = virtio_live(d);
	spin_unlock(&d->lock);
	return live;
}

static const struct virtio_kind kind = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.queues = 2,
	.notify = console_notify,
	.retry = console_retry,
};

int virtio_console_create(struct vm *vm, struct uart *uart, struct virtio **out)
{
	int err = virtio_create(vm, VIRTIO_SLOT_CONSOLE, &kind, out);

	if (err)
		return err;
	((struct virtio_console *)*out)->uart = uart;
	uart->second_receive = receive;
	uart->second = *out;
	return 0;
}
