/*
 * A directory shown again through libfuse, unchanged: what FUSE costs a file system in C that does nothing at all.
 *
 *     passthrough SOURCE MOUNT [-o splice] [libfuse's own options]
 *
 * Without `splice` every read is copied through a buffer, as one that decrypts must; with it, pages are moved.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct settings { char *source; int splice; };
static struct settings settings;
static int top;

static const char *below(const char *path) { return path[1] ? path + 1 : "."; }
static int done(int result) { return result < 0 ? -errno : 0; }
static int at(struct fuse_file_info *fi) { return (int)fi->fh; }

static void *p_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    const unsigned moves = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE;

    conn->want &= ~moves;
    if (settings.splice)
        conn->want |= conn->capable & moves;
    cfg->use_ino = cfg->kernel_cache = cfg->nullpath_ok = 1;
    cfg->entry_timeout = cfg->attr_timeout = cfg->negative_timeout = 3600;
    return NULL;
}

static int p_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    return done(fi ? fstat(at(fi), st) : fstatat(top, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int p_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                     enum fuse_readdir_flags flags)
{
    struct dirent *entry;
    struct stat st;
    (void)path, (void)offset;
    rewinddir((DIR *)fi->fh);
    while ((entry = readdir((DIR *)fi->fh))) {
        int full = (flags & FUSE_READDIR_PLUS) &&
                   !fstatat(dirfd((DIR *)fi->fh), entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
        if (fill(buf, entry->d_name, full ? &st : NULL, 0, full ? FUSE_FILL_DIR_PLUS : 0))
            break;
    }
    return 0;
}

static int p_opendir(const char *path, struct fuse_file_info *fi)
{
    int fd = openat(top, below(path), O_RDONLY | O_DIRECTORY);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    fi->fh = (uintptr_t)dir;
    return dir ? 0 : -errno;
}

static int p_releasedir(const char *path, struct fuse_file_info *fi) { (void)path; return done(closedir((DIR *)fi->fh)); }

static int opened(int fd, struct fuse_file_info *fi) { fi->fh = fd; return done(fd); }
static int p_open(const char *path, struct fuse_file_info *fi)
{
    return opened(openat(top, below(path), fi->flags & ~(O_NOFOLLOW | O_DIRECT)), fi);
}
static int p_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return opened(openat(top, below(path), fi->flags & ~O_DIRECT, mode), fi);
}
static int p_release(const char *path, struct fuse_file_info *fi) { (void)path; return done(close(at(fi))); }

static int p_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ssize_t count = pread(at(fi), buf, size, offset);
    (void)path;
    return count < 0 ? -errno : (int)count;
}

static int p_read_buf(const char *path, struct fuse_bufvec **out, size_t size, off_t offset, struct fuse_file_info *fi)
{
    struct fuse_bufvec *from = calloc(1, sizeof *from);
    (void)path;
    if (!from)
        return -ENOMEM;
    *from = FUSE_BUFVEC_INIT(size);
    from->buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
    from->buf[0].fd = at(fi);
    from->buf[0].pos = offset;
    *out = from;
    return 0;
}

static int p_write(const char *path, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ssize_t count = pwrite(at(fi), buf, size, offset);
    (void)path;
    return count < 0 ? -errno : (int)count;
}

static int p_fsync(const char *path, int data, struct fuse_file_info *fi) { (void)path, (void)data; return done(fsync(at(fi))); }
static int p_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    int fd = fi ? at(fi) : openat(top, below(path), O_WRONLY), result = fd < 0 ? -errno : done(ftruncate(fd, size));
    if (!fi && fd >= 0)
        close(fd);
    return result;
}
static int p_unlink(const char *path) { return done(unlinkat(top, below(path), 0)); }
static int p_mkdir(const char *path, mode_t mode) { return done(mkdirat(top, below(path), mode)); }
static int p_rmdir(const char *path) { return done(unlinkat(top, below(path), AT_REMOVEDIR)); }
static int p_statfs(const char *path, struct statvfs *st) { (void)path; return done(fstatvfs(top, st)); }

static struct fuse_operations operations = {
    .init = p_init, .getattr = p_getattr, .opendir = p_opendir, .readdir = p_readdir, .releasedir = p_releasedir,
    .open = p_open, .create = p_create, .release = p_release, .read = p_read, .write = p_write, .fsync = p_fsync,
    .truncate = p_truncate, .unlink = p_unlink, .mkdir = p_mkdir, .rmdir = p_rmdir, .statfs = p_statfs,
};

static int first_is_source(void *data, const char *argument, int key, struct fuse_args *out)
{
    struct settings *to = data;
    (void)out;
    if (key != FUSE_OPT_KEY_NONOPT || to->source)
        return 1;
    to->source = realpath(argument, NULL);
    return to->source ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const struct fuse_opt options[] = {{"splice", offsetof(struct settings, splice), 1}, FUSE_OPT_END};
    struct fuse_args args = FUSE_ARGS_INIT(argc, argv);

    if (fuse_opt_parse(&args, &settings, options, first_is_source) || !settings.source ||
        (top = open(settings.source, O_RDONLY | O_DIRECTORY)) < 0) {
        fprintf(stderr, "passthrough: want an existing SOURCE and a MOUNT\n");
        return 2;
    }
    if (settings.splice)
        operations.read_buf = p_read_buf;
    return fuse_main(args.argc, args.argv, &operations, NULL);
}
