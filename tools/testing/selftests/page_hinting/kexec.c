// SPDX-License-Identifier: GPL-2.0
/*
 * kexec KERNEL INITRAMFS CMDLINE: have a bzImage ready to go over to.
 * kexec: go over to it, which ends everything else.
 *
 * By kexec_load(2), since kexec_file_load(2) takes no kernel that is built
 * without CONFIG_RELOCATABLE.
 *
 * Exit status: 0, or 2 with the reason on stderr.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where it all goes, in memory that a PC with 1 GiB has. */
#define BOOT_PARAMS	0x90000UL
#define CODE		0x91000UL
#define CMDLINE		0x92000UL
#define KERNEL		0x100000UL
#define INITRAMFS	0x30000000UL

/* Documentation/arch/x86/boot.rst, "64-bit BOOT PROTOCOL" */
#define ENTRY_64	0x200

#define SECTOR		512
#define PAGE		4096UL

struct file {
	uint8_t *data;
	size_t size;
};

static void fail(const char *what)
{
	fprintf(stderr, "kexec: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct file read_file(const char *path)
{
	struct file file = {};
	struct stat stat;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat))
		fail(path);
	file.data = malloc(stat.st_size);
	if (!file.data)
		fail(path);
	while ((n = read(fd, file.data + file.size, stat.st_size - file.size)) > 0)
		file.size += n;
	if (n < 0)
		fail(path);
	close(fd);
	return file;
}

static struct kexec_segment segment(const void *data, size_t size, unsigned long mem)
{
	return (struct kexec_segment){
		.buf = data,
		.bufsz = size,
		.mem = (void *)mem,
		.memsz = (size + PAGE - 1) & ~(PAGE - 1),
	};
}

static void load(const char *kernel_path, const char *initramfs_path, const char *cmdline)
{
	/* movq $BOOT_PARAMS, %rsi; movq $KERNEL + ENTRY_64, %rax; jmp *%rax */
	static uint8_t code[] = {
		0x48, 0xc7, 0xc6, 0, 0, 0, 0, 0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xff, 0xe0
	};
	const uint32_t params_at = BOOT_PARAMS, entry = KERNEL + ENTRY_64;
	struct file kernel = read_file(kernel_path);
	struct file initramfs = read_file(initramfs_path);
	/* What the machine is like, this kernel has been told as well. */
	struct file told = read_file("/sys/kernel/boot_params/data");
	struct boot_params *params = (void *)told.data, *image = (void *)kernel.data;
	size_t setup, header = offsetof(struct boot_params, hdr);

	errno = ENOEXEC;
	if (told.size != sizeof(*params) || kernel.size < sizeof(*image) ||
	    image->hdr.header != 0x53726448 || !(image->hdr.xloadflags & XLF_KERNEL_64))
		fail(kernel_path);
	setup = (image->hdr.setup_sects + 1) * SECTOR;
	if (kernel.size <= setup)
		fail(kernel_path);

	/* The byte at 0x201 says how far from 0x202 the header ends. */
	memset(&params->hdr, 0, sizeof(params->hdr));
	memcpy(&params->hdr, &image->hdr, 0x202 + kernel.data[0x201] - header);
	params->hdr.type_of_loader = 0xff;
	params->hdr.ramdisk_image = INITRAMFS;
	params->hdr.ramdisk_size = initramfs.size;
	params->hdr.cmd_line_ptr = CMDLINE;
	memcpy(code + 3, &params_at, sizeof(params_at));
	memcpy(code + 10, &entry, sizeof(entry));

	struct kexec_segment segments[] = {
		segment(params, sizeof(*params), BOOT_PARAMS),
		segment(code, sizeof(code), CODE),
		segment(cmdline, strlen(cmdline) + 1, CMDLINE),
		segment(kernel.data + setup, kernel.size - setup, KERNEL),
		segment(initramfs.data, initramfs.size, INITRAMFS),
	};
	if (syscall(SYS_kexec_load, CODE, sizeof(segments) / sizeof(*segments),
		    segments, KEXEC_ARCH_X86_64))
		fail("kexec_load");
}

int main(int argc, char **argv)
{
	if (argc == 1) {
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			LINUX_REBOOT_CMD_KEXEC, NULL);
		fail("reboot");
	}
	if (argc != 4) {
		fprintf(stderr, "usage: kexec [KERNEL INITRAMFS CMDLINE]\n");
		return 2;
	}
	load(argv[1], argv[2], argv[3]);
	return 0;
}
