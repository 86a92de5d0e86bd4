/*
 * A service whose executed functions and system calls are known in advance.
 *
 * It has 50 functions, none inlined, cloned or merged, and no C library. 25 of them run: 2 when it
 * starts, 22 for every request (one of them, gt_serve, also waits between requests), and 1 when it is
 * stopped. Every request makes the same 40 distinct system calls. expected.json lists both; a test
 * compares the list with what is measured.
 *
 * A request is one TCP connection: it is read, answered as HTTP, and closed.
 */

typedef unsigned long u64;
typedef long i64;

/* Not inlined, not cloned, not merged with an equal function, kept although nothing calls it. */
#define OWN __attribute__((noipa, used))

static inline __attribute__((always_inline)) i64 call6(i64 n, u64 a, u64 b, u64 c, u64 d, u64 e,
                                                       u64 f)
{
    i64 result;
    register u64 r10 __asm__("r10") = d;
    register u64 r8 __asm__("r8") = e;
    register u64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL(n, a, b, c, d, e, f) \
    call6((n), (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))
#define CALL0(n) CALL(n, 0, 0, 0, 0, 0, 0)
#define CALL1(n, a) CALL(n, a, 0, 0, 0, 0, 0)
#define CALL2(n, a, b) CALL(n, a, b, 0, 0, 0, 0)
#define CALL3(n, a, b, c) CALL(n, a, b, c, 0, 0, 0)
#define CALL4(n, a, b, c, d) CALL(n, a, b, c, d, 0, 0)

enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_poll = 7, SYS_lseek = 8, SYS_mmap = 9,
    SYS_mprotect = 10, SYS_munmap = 11, SYS_brk = 12, SYS_rt_sigaction = 13, SYS_ioctl = 16,
    SYS_pread64 = 17, SYS_pwrite64 = 18, SYS_sched_yield = 24, SYS_madvise = 28, SYS_dup = 32,
    SYS_nanosleep = 35, SYS_getpid = 39, SYS_socket = 41, SYS_bind = 49, SYS_listen = 50,
    SYS_setsockopt = 54, SYS_uname = 63, SYS_fcntl = 72, SYS_fsync = 74, SYS_fdatasync = 75,
    SYS_ftruncate = 77, SYS_getcwd = 79, SYS_umask = 95, SYS_getuid = 102, SYS_getgid = 104,
    SYS_geteuid = 107, SYS_getppid = 110, SYS_gettid = 186, SYS_getdents64 = 217,
    SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257, SYS_mkdirat = 258,
    SYS_newfstatat = 262, SYS_unlinkat = 263, SYS_renameat = 264, SYS_accept4 = 288,
    SYS_pipe2 = 293, SYS_getrandom = 318, SYS_fstat = 5,
};

enum { AT_FDCWD = -100, AT_REMOVEDIR = 0x200, O_RDWR = 2, O_CREAT = 0100, O_DIRECTORY = 0200000 };

#define DIRECTORY "/tmp/ground-truth"
#define FILE_A DIRECTORY "/a"
#define FILE_B DIRECTORY "/b"

static char buffer[4096];
static int failures;

#define CHECK(condition) do { if (!(condition)) failures++; } while (0)

/* --- at the start ------------------------------------------------------------------------------ */

OWN void gt_serve(int listener);
OWN int gt_listen(void);

/* 1 */
__attribute__((naked, used)) void _start(void)
{
    __asm__("xor %ebp, %ebp\n\t"
            "and $-16, %rsp\n\t"
            "call gt_listen\n\t"
            "mov %eax, %edi\n\t"
            "call gt_serve\n\t"
            "ud2");
}

/* 2: runs once, when it is stopped. */
OWN void gt_on_term(int signal)
{
    CALL1(SYS_exit_group, signal == 15 ? 0 : 1);
}

struct kernel_sigaction {
    void (*handler)(int);
    u64 flags;
    void (*restorer)(void);
    u64 mask;
};

/* 3 */
OWN int gt_listen(void)
{
    /* The flag says that there is a restorer; the handler never returns, so none is needed. */
    struct kernel_sigaction action = { gt_on_term, 0x04000000, 0, 0 };
    /* AF_INET, port 7000, any address. */
    unsigned char address[16] = { 2, 0, 7000 >> 8, 7000 & 255 };
    int one = 1;
    CALL4(SYS_rt_sigaction, 15, &action, 0, 8);
    int listener = (int)CALL3(SYS_socket, 2, 1, 0);
    CALL(SYS_setsockopt, listener, 1, 2, &one, sizeof one, 0);
    if (CALL3(SYS_bind, listener, address, sizeof address) != 0 ||
        CALL2(SYS_listen, listener, 64) != 0)
        CALL1(SYS_exit_group, 1);
    return listener;
}

/* --- for every request ------------------------------------------------------------------------- */

/* 4 */
OWN void gt_who(void)
{
    CHECK(CALL0(SYS_getpid) > 0);
    CHECK(CALL0(SYS_getppid) >= 0);
    CHECK(CALL0(SYS_gettid) > 0);
}

/* 5 */
OWN void gt_owner(void)
{
    CHECK(CALL0(SYS_getuid) >= 0);
    CHECK(CALL0(SYS_geteuid) >= 0);
    CHECK(CALL0(SYS_getgid) >= 0);
}

/* 6 */
OWN void gt_mask(void)
{
    CHECK(CALL1(SYS_umask, 022) >= 0);
}

/* 7 */
OWN void gt_where(void)
{
    CHECK(CALL2(SYS_getcwd, buffer, sizeof buffer) > 0);
    CHECK(CALL1(SYS_uname, buffer) == 0);
}

/* 8 */
OWN void gt_time(void)
{
    i64 now[2];
    CHECK(CALL2(SYS_clock_gettime, 1, now) == 0);
}

/* 9 */
OWN void gt_pause(void)
{
    i64 microsecond[2] = { 0, 1000 };
    CHECK(CALL2(SYS_nanosleep, microsecond, 0) == 0);
    CHECK(CALL0(SYS_sched_yield) == 0);
}

/* 10 */
OWN void gt_random(void)
{
    CHECK(CALL3(SYS_getrandom, buffer, 16, 0) == 16);
}

/* 11 */
OWN void gt_memory(void)
{
    i64 page = CALL(SYS_mmap, 0, 8192, 3, 0x22, -1, 0);
    *(volatile char *)page = 1;
    CHECK(CALL3(SYS_madvise, page, 4096, 4) == 0);
    CHECK(CALL3(SYS_mprotect, page, 4096, 1) == 0);
    CHECK(CALL2(SYS_munmap, page, 8192) == 0);
}

/* 12 */
OWN void gt_break(void)
{
    CHECK(CALL1(SYS_brk, 0) > 0);
}

/* 13 */
OWN void gt_directory(void)
{
    i64 result = CALL3(SYS_mkdirat, AT_FDCWD, DIRECTORY, 0755);
    CHECK(result == 0 || result == -17);
}

/* 14 */
OWN int gt_create(void)
{
    return (int)CALL4(SYS_openat, AT_FDCWD, FILE_A, O_RDWR | O_CREAT, 0644);
}

/* 15 */
OWN void gt_fill(int file)
{
    CHECK(CALL4(SYS_pwrite64, file, "ground truth", 12, 0) == 12);
    CHECK(CALL2(SYS_ftruncate, file, 8) == 0);
}

/* 16 */
OWN void gt_flush(int file)
{
    CHECK(CALL1(SYS_fdatasync, file) == 0);
    CHECK(CALL1(SYS_fsync, file) == 0);
}

/* 17 */
OWN void gt_look(int file)
{
    CHECK(CALL3(SYS_lseek, file, 0, 0) == 0);
    CHECK(CALL4(SYS_pread64, file, buffer, 8, 0) == 8);
    CHECK(CALL2(SYS_fstat, file, buffer) == 0);
}

/* 18 */
OWN void gt_copy_handle(int file)
{
    int copy = (int)CALL1(SYS_dup, file);
    CHECK(CALL3(SYS_fcntl, copy, 1, 0) == 0);
    CALL1(SYS_close, copy);
    CALL1(SYS_close, file);
}

/* 19 */
OWN void gt_rename(void)
{
    CHECK(CALL4(SYS_renameat, AT_FDCWD, FILE_A, AT_FDCWD, FILE_B) == 0);
    CHECK(CALL4(SYS_newfstatat, AT_FDCWD, FILE_B, buffer, 0) == 0);
}

/* 20 */
OWN void gt_list(void)
{
    int directory = (int)CALL4(SYS_openat, AT_FDCWD, DIRECTORY, O_DIRECTORY, 0);
    CHECK(CALL3(SYS_getdents64, directory, buffer, sizeof buffer) > 0);
    CALL1(SYS_close, directory);
    CHECK(CALL3(SYS_unlinkat, AT_FDCWD, FILE_B, 0) == 0);
}

/* 21 */
OWN void gt_pipe(void)
{
    int ends[2], waiting = 0;
    CHECK(CALL2(SYS_pipe2, ends, 0) == 0);
    CALL3(SYS_write, ends[1], "x", 1);
    CHECK(CALL3(SYS_ioctl, ends[0], 0x541b, &waiting) == 0 && waiting == 1);
    CALL1(SYS_close, ends[0]);
    CALL1(SYS_close, ends[1]);
}

/* 22 */
OWN void gt_wait_for(int connection)
{
    struct { int fd; short events, revents; } one = { connection, 1, 0 };
    CALL3(SYS_poll, &one, 1, 1000);
}

/* 23 */
OWN void gt_all(void)
{
    gt_who();
    gt_owner();
    gt_mask();
    gt_where();
    gt_time();
    gt_pause();
    gt_random();
    gt_memory();
    gt_break();
    gt_directory();
    int file = gt_create();
    gt_fill(file);
    gt_flush(file);
    gt_look(file);
    gt_copy_handle(file);
    gt_rename();
    gt_list();
    gt_pipe();
}

static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
static const char bad[] = "HTTP/1.1 500 Wrong\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbad\n";

/* 24 */
OWN void gt_answer(int connection)
{
    /* The whole request, which may come in pieces: unread input at the close would reset the
       connection. */
    i64 asked = 0, got;
    do {
        gt_wait_for(connection);
        got = CALL3(SYS_read, connection, buffer + asked, sizeof buffer - asked);
        asked += got > 0 ? got : 0;
    } while (got > 0 && asked < (i64)sizeof buffer &&
             !(asked >= 4 && buffer[asked - 4] == '\r' && buffer[asked - 2] == '\r'));
    failures = 0;
    gt_all();
    /* A readiness check connects and says nothing. */
    if (asked > 0) {
        if (failures == 0)
            CALL3(SYS_write, connection, ok, sizeof ok - 1);
        else
            CALL3(SYS_write, connection, bad, sizeof bad - 1);
    }
    CALL1(SYS_close, connection);
}

/* 25 */
OWN void gt_serve(int listener)
{
    for (;;) {
        i64 connection = CALL4(SYS_accept4, listener, 0, 0, 0);
        if (connection >= 0)
            gt_answer((int)connection);
    }
}

/* --- never ------------------------------------------------------------------------------------- */

static volatile u64 never_result;

/* 26 to 50: bodies that differ, so that content alone tells them apart. */
#define NEVER(n) \
    OWN u64 gt_never_##n(u64 x) \
    { \
        for (u64 i = 0; i < n; i++) \
            x = x * (0x9e3779b97f4a7c15ul + n) + (x >> (n % 13 + 1)); \
        never_result = x; \
        return x ^ n; \
    }

NEVER(1) NEVER(2) NEVER(3) NEVER(4) NEVER(5)
NEVER(6) NEVER(7) NEVER(8) NEVER(9) NEVER(10)
NEVER(11) NEVER(12) NEVER(13) NEVER(14) NEVER(15)
NEVER(16) NEVER(17) NEVER(18) NEVER(19) NEVER(20)
NEVER(21) NEVER(22) NEVER(23) NEVER(24) NEVER(25)
