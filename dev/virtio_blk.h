/* SPDX-License-Identifier: MIT */
/*
 * A disk (virtio 1.2, "Block Device") whose content is a file in memory. The file is never written:
 * VMs may share it. What a guest writes goes to frames of its own, which live as long as the VM's
 * devices, also when the guest restarts.
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
#define VIRTIO_BLK_SIZE_MAX (512 * GIB)

/* 0 and *out; -ENOMEM, or io_register's error. *disk is copied, except for the file and its name.
 */
int virtio_blk_create(struct vm *vm, const struct virtio_disk *disk, struct virtio **out);
