/* SPDX-License-Identifier: MIT */
#include "lib/error.h"
#include "lib/log.h"

int trace_error_at(int code, const char *file, int line)
{
	log_debug("%s:%d: error %d (%s)", file, line, code, error_name(code));
	return code;
}

const char *error_name(int code)
{
	switch (code < 0 ? -code : code) {
	case 0:
		return "no error";
	case EPERM:
		return "not permitted";
	case ENOENT:
		return "not found";
	case EIO:
		return "faulted";
	case ENXIO:
		return "no such device or address";
	case EAGAIN:
		return "try again";
	case ENOMEM:
		return "out of memory";
	case EFAULT:
		return "bad address";
	case EBUSY:
		return "busy";
	case EEXIST:
		return "already there";
	case ENODEV:
		return "no such device";
	case EINVAL:
		return "invalid";
	case ENOSPC:
		return "no space";
	case ERANGE:
		return "out of range";
	case EOPNOTSUPP:
		return "not supported";
	case ETIMEDOUT:
		return "timed out";
	default:
		return "error";
	}
}
