#ifndef PERFKIT_ALLOCA_H
#define PERFKIT_ALLOCA_H
#include <stddef.h>
void *alloca(size_t);
#endif
