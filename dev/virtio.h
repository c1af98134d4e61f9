/* SPDX-License-Identifier: MIT */
/*
 * virtio devices behind MMIO registers (virtio 1.2, "Virtio Over MMIO"), with split rings.
 *
 *	guest kicks a queue -> kind->notify -> virtq_next: one chain, copied once
 *	                                       virtq_read, virtq_write: its data
 *	                                       virtq_done: used ring, interrupt
 *
 * What is in a ring is the guest's and believed by nobody. The first thing in it that can't be
 * breaks the device: one line in the log, NEEDS_RESET in its status, and it touches no guest memory
 * until the driver has reset it.
 *
 * The work for a kick is done by the vCPU that kicks, a slice at a time. If something is left the
 * instruction that kicked is executed again, so that interrupts, other vCPUs and vm_stop() get
 * their turn in between; a chain may be left in the middle (virtq.done) and goes on from there.
 *
 * Each device has a lock (RANK_VIRTIO), taken inside; notify is called without it. Functions that
 * say "locked" are for the devices. Nobody holds two of these locks.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include "virt/vm.h"

/* Where devices are: the DSDT says the same. */
enum virtio_slot {
	VIRTIO_SLOT_BLK,
	VIRTIO_SLOT_NET,
	VIRTIO_SLOT_RNG,
	VIRTIO_SLOT_CONSOLE,
	VIRTIO_SLOTS
};
#define VIRTIO_GPA(slot)    (0xfeb00000ull + (slot)*0x1000ull)
#define VIRTIO_REGION_SIZE  0x200
#define VIRTIO_GSI(slot)    (16 + (slot))
#define VIRTIO_QUEUES	    2
#define VIRTIO_QUEUE_MAX    128	       /* descriptors */
#define VIRTIO_SLICE	    (64 * KIB) /* bytes of work for one kick, before others get a turn */
#define VIRTIO_REQUEST_COST 512	       /* what a chain costs besides its data, in such bytes */

struct virtq {
	u64 desc, avail, used; /* gpa */
	u16 size;	       /* as the driver says; checked when it becomes ready */
	bool ready;
	bool busy;    /* a chain is at hand: the rest describes it */
	bool fresh;   /* the device has not looked at it yet: cleared by the device */
	bool missing; /* guest memory that it needs is: nothing happens until it is tried again */
	u16 next_avail, next_used;
	u16 head, nr, nr_readable; /* chain[0..nr): first what the device reads, then what it writes
				    */
	u64 readable, writable;	   /* bytes */
	u64 done;		   /* the device's progress in it */
	u64 resume;		   /* the same, for the next chain, which was begun */
	struct vring_desc chain[VIRTIO_QUEUE_MAX];
};

struct state;
struct virtio;
struct virtio_kind {
	const char *name;
	u32 id;	    /* VIRTIO_ID_* */
	u32 queues; /* at most VIRTIO_QUEUES */
	/* The guest kicked one of the queues. On the runner, no lock held. True: again, please. */
	bool (*notify)(struct virtio *d, u32 queue);
	/*
	 * Work that no vCPU asked for met missing memory, and may be tried again. On the runner of
	 * a vCPU, no lock held. May be NULL.
	 */
	void (*retry)(struct virtio *d);
	/*
	 * Give back what the device has besides itself, or a part of it that takes no longer than
	 * some 10 us. True: there is more. May be NULL.
	 */
	bool (*destroy)(struct virtio *d);
};

/* The first member of each device. */
struct virtio {
	struct vm *vm;
	const struct virtio_kind *kind;
	u32 slot;
	struct spinlock lock;
	/* Set by who creates it. */
	u64 features; /* offered, besides VIRTIO_F_VERSION_1 */
	const void *config;
	u32 config_size;
	/* Registers. */
	u64 driver_features;
	u32 features_sel, driver_features_sel, queue_sel;
	u32 interrupt_status;
	u8 status;
	bool held; /* the VM is being copied: nothing moves */
	struct virtq q[VIRTIO_QUEUES];
	/* Counters: written under the lock, read by anyone, never reset. */
	u64 requests, bytes, dropped, errors, broken;
};

/*
 * A device of size bytes, at most VIRTIO_SIZE_MAX, that begins with a struct virtio and is
 * otherwise zero, and its registers on the bus. 0 and *out, -ENOMEM, or io_register's error.
 */
#define VIRTIO_ORDER	1
#define VIRTIO_SIZE_MAX (PAGE_SIZE << VIRTIO_ORDER)
int virtio_create(struct vm *vm, enum virtio_slot slot, const struct virtio_kind *kind,
		  struct virtio **out);
/* In the record of its VM (virt/state.h), which does not run; what is kept of a disk is not all. */
void virtio_state(struct virtio *d, struct state *s);
/* A part of it. True: there is more; false: d is gone. */
bool virtio_destroy_step(struct virtio *d);
/* Missing memory may be there now. On the runner of a vCPU. */
void virtio_retry(struct virtio *d);
/*
 * Power-on state. The VM is not running; after this the device touches no memory of it, also not
 * for others, until the VM runs again.
 */
void virtio_reset(struct virtio *d);

/*
 * Is there a chain at hand, or a new one in the ring? Then its sizes are in *q. Locked. False also
 * for a queue that is not ready and a device that is broken or that no driver runs.
 */
bool virtq_next(struct virtio *d, struct virtq *q);
/*
 * Copy len bytes from the readable, or to the writable part of the chain at hand, offset bytes into
 * it; the part is at least that long. False: the guest has no (writable) memory there, the device
 * is broken now; or it is missing, and the same is to be done again later (q->missing). Locked.
 */
bool virtq_read(struct virtio *d, struct virtq *q, u64 offset, void *buf, size_t len) MUST_CHECK;
bool virtq_write(struct virtio *d, struct virtq *q, u64 offset, const void *buf,
		 size_t len) MUST_CHECK;
/* The chain at hand goes back to the guest, with that many bytes written to it. Locked. */
void virtq_done(struct virtio *d, struct virtq *q, u32 written);
/*
 * A whole notify for a queue of requests: `serve` does what can be done at once of the chain at
 * hand, locked, and returns what that cost; this calls it until the queue is empty (false) or the
 * slice is used up (true). Not locked.
 */
bool virtq_serve(struct virtio *d, struct virtq *q,
		 u32 (*serve)(struct virtio *d, struct virtq *q));
/* What the guest has put into this queue can't be: printf style. Returns false. Locked. */
bool virtio_broken(struct virtio *d, const struct virtq *q, const char *fmt, ...) PRINTF(3, 4);

/* For virtq.c: is a driver at work, with a device that is not broken? Raise an interrupt. Locked.
 */
bool virtio_live(const struct virtio *d);
void virtio_interrupt(struct virtio *d, u32 why);
