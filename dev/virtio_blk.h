/* SPDX-License-Identifier: MIT */
/*
 * A disk (virtio 1.2, "Block Device") whose content is a file in memory. The file is never written:
 * VMs may share it. What a guest writes goes to an object of its own (mm/backing.h), which lives as
 * long as the VM's devices, also when the guest restarts.
 */
#pragma once

#include "dev/virtio.h"

#define VIRTIO_BLK_SECTOR 512

struct virtio_disk {
	const void *base; /* NULL: no disk */
	u64 size;	  /* bytes, a multiple of VIRTIO_BLK_SECTOR, at most VIRTIO_BLK_SIZE_MAX */
	const char *id;	  /* what the guest is told as the disk's serial number */
	bool readonly;
};
#define VIRTIO_BLK_SIZE_MAX (256 * GIB)

/* 0 and *out; -ENOMEM, or io_register's error. *disk is copied, except for the file and its name.
 */
int virtio_blk_create(struct vm *vm, const struct virtio_disk *disk, struct virtio **out);
/*
 * The disk of a VM's clone has what the VM's has now, and from here on each its own. 0; -ENOMEM;
 * -ENOSPC: BACKING_LINE_MAX. Nobody uses either.
 */
int virtio_blk_fork(struct virtio *from, struct virtio *to);
