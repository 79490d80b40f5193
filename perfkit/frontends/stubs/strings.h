#ifndef PERFKIT_STRINGS_H
#define PERFKIT_STRINGS_H
#include <string.h>
void bzero(void *, size_t);
#endif
