#ifndef PERFKIT_UNISTD_H
#define PERFKIT_UNISTD_H
#include <sys/types.h>
#define STDIN_FILENO 0
#define STDOUT_FILENO 1
#define STDERR_FILENO 2
#define _SC_PAGESIZE 30
#define _SC_NPROCESSORS_ONLN 84
extern char *optarg;
extern int optind;
int getopt(int, char *const *, const char *);
int access(const char *, int);
int close(int);
pid_t fork(void);
int ftruncate(int, off_t);
pid_t getpid(void);
int isatty(int);
off_t lseek(int, off_t, int);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
unsigned sleep(unsigned);
int usleep(unsigned);
long sysconf(int);
int unlink(const char *);
#endif
