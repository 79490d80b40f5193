#ifndef PERFKIT_STDALIGN_H
#define PERFKIT_STDALIGN_H
#define alignas _Alignas
#define alignof _Alignof
#endif
