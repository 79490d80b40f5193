/* No include guard: NDEBUG may change between two inclusions. */
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
void perfkit_assert(int condition);
#define assert(condition) perfkit_assert(!!(condition))
#endif
#ifndef static_assert
#define static_assert _Static_assert
#endif
