#ifndef PERFKIT_SYS_STAT_H
#define PERFKIT_SYS_STAT_H
#include <sys/types.h>
struct stat {
    mode_t st_mode;
    off_t st_size;
};
int stat(const char *, struct stat *);
int fstat(int, struct stat *);
int mkdir(const char *, mode_t);
#endif
