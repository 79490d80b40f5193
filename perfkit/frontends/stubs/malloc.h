#ifndef PERFKIT_MALLOC_H
#define PERFKIT_MALLOC_H
#include <stdlib.h>
void *memalign(size_t, size_t);
#endif
