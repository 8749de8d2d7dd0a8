/* A CUDA driver for tests on machines without a GPU: real PyCUDA and real cuda-bindings run against it.

   Streams are queues that nothing works off by itself. FAKE_CUDA_MODE=lazy (default) runs, at each synchronization,
   only what that synchronization needs, so a missing dependency between streams shows as stale data; eager runs
   everything as soon as it may, so a buffer reused too early shows as overwritten data. The clock is virtual: a copy
   takes 10 us, a kernel 50 us (one that spins 1 us and 1 ns a cycle), a wait for the host 1 ms, nothing else takes time. Live objects are counted, so a leak can be asserted. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define E __attribute__((visibility("default")))
typedef int R;
typedef uint64_t P;
enum { OK = 0, INVALID = 1, OOM = 2, NO_DEVICE = 100, NO_CONTEXT = 201, CAPTURE = 900, INVALIDATED = 901,
       NOT_SUPPORTED = 801, NOT_READY = 600, STUCK = 702, FAULT = 700 };
enum { SPIN, COPY, KERNEL, ADD, CALL, RECORD, WAIT_EVENT, WAIT_VALUE };

typedef struct { int64_t recorded, done; double at_us; } Event;
typedef struct { int kind; void *to; const void *from; size_t bytes; Event *event; int64_t ticket; volatile uint32_t *word;
                 uint32_t value; int n, m, k; const volatile int *shape; int version; const void *other; int types[3]; } Op;
typedef struct { Op *ops; size_t n, room; } List;
typedef struct Stream { List queue; size_t head; List *capture; int broken; double clock_us; struct Stream *next; } Stream;

static Stream *streams;
static int depth, live[6];            /* memory, pinned, events, streams, graphs, modules */
static int64_t calls[4];              /* kernels run, graph launches, captures, waits on a value */
static uintptr_t contexts[256];
enum { MEMORY, PINNED, EVENTS, STREAMS, GRAPHS, MODULES };

static int flag(const char *name, const char *value) { const char *v = getenv(name); return v && !strcmp(v, value); }
static void push_op(List *list, Op op) {
  if (list->n == list->room) list->ops = realloc(list->ops, sizeof(Op) * (list->room = list->room * 2 + 16));
  list->ops[list->n++] = op;
}
enum { FLOATS = 0, INTS = 3, BOOLS = 4, BYTES = 5 };  /* as TensorRT numbers its types */
static double value_of(const void *at, int type, int i) {
  return type == FLOATS ? ((const float *)at)[i] : type == INTS ? ((const int32_t *)at)[i] : ((const uint8_t *)at)[i]; }
static void put_value(void *at, int type, int i, double value) {
  if (type == FLOATS) ((float *)at)[i] = (float)value;
  else if (type == INTS) ((int32_t *)at)[i] = (int32_t)value;
  else ((uint8_t *)at)[i] = type == BOOLS ? value != 0 : (uint8_t)value; }
static double kernel_us(void) { return 50 + calls[0]++ * 2654435761u % 1000 * 5e-7; }  /* no card takes one time twice */
static void run(Op *op, Stream *s) {
  if (op->kind == SPIN) s->clock_us += 1 + op->bytes / 1e3;
  if (op->kind == COPY) { memcpy(op->to, op->from, op->bytes); s->clock_us += 10; }
  if (op->kind == KERNEL) {  /* out[i, c] = (c + 1) * mean(in[i]) + c; NaN if the context's shape has changed since */
    const float *in = op->from; float *out = op->to;
    for (int i = 0; i < op->n; i++) {
      double sum = *op->shape == op->version ? 0 : NAN; for (int j = 0; j < op->m; j++) sum += in[(size_t)i * op->m + j];
      for (int c = 0; c < op->k; c++) out[i * op->k + c] = (float)((c + 1) * (sum / op->m) + c);
    }
    s->clock_us += kernel_us();
  }
  if (op->kind == ADD) {  /* out[i] = in[i] + other[i % k], of any types; -1 if the context's shape has changed since */
    for (int i = 0; i < op->n; i++) {
      double sum = value_of(op->from, op->types[0], i) + value_of(op->other, op->types[1], i % op->k);
      put_value(op->to, op->types[2], i, *op->shape == op->version ? sum : -1);
    }
    s->clock_us += kernel_us();
  }
  if (op->kind == CALL) { ((void (*)(int))op->from)(op->n); s->clock_us += op->m; calls[0]++; }
  if (op->kind == RECORD) { op->event->done = op->ticket; op->event->at_us = s->clock_us; }
  if (op->kind == WAIT_VALUE) s->clock_us += 1000;
  if (op->kind == WAIT_EVENT && op->event->at_us > s->clock_us) s->clock_us = op->event->at_us;
}
static Stream *recorder(Event *event, int64_t ticket) {
  for (Stream *s = streams; s; s = s->next)
    for (size_t i = s->head; i < s->queue.n; i++)
      if (s->queue.ops[i].kind == RECORD && s->queue.ops[i].event == event && s->queue.ops[i].ticket == ticket) return s;
  return 0;
}
static int step(Stream *s) {  /* 1 ran the head, 0 blocked or empty; runs other streams as needed */
  if (s->head == s->queue.n) { s->head = s->queue.n = 0; return 0; }
  Op *op = &s->queue.ops[s->head];
  if (op->kind == WAIT_VALUE && (int32_t)(*op->word - op->value) < 0) return 0;
  if (op->kind == WAIT_EVENT)
    while (op->event->done < op->ticket) { Stream *other = recorder(op->event, op->ticket); if (!other || !step(other)) return 0; }
  Op copy = s->queue.ops[s->head++];
  run(&copy, s);
  return 1;
}
static void eager(void) {
  if (!flag("FAKE_CUDA_MODE", "eager")) return;
  for (int any = 1; any;) { any = 0; for (Stream *s = streams; s; s = s->next) while (step(s)) any = 1; }
}
static R drain(Stream *s) {
  if (flag("FAKE_CUDA_FAULT", "yes")) return FAULT;
  if (s->capture) { s->broken = 1; return CAPTURE; }
  for (int idle = 0; s->head < s->queue.n;) {
    if (step(s)) { idle = 0; continue; }
    if (s->head == s->queue.n) break;
    if (++idle > 3000) return STUCK;
    usleep(1000);
  }
  s->head = s->queue.n = 0;
  return OK;
}
static int runs_elsewhere(Stream *s, Op *op) {  /* a context's kernels may not be in flight on two streams */
  for (Stream *other = streams; other; other = other->next)
    for (size_t i = other->head; other != s && i < other->queue.n; i++)
      if ((other->queue.ops[i].kind == KERNEL || other->queue.ops[i].kind == ADD) && other->queue.ops[i].shape == op->shape)
        return 1;
  return 0;
}
static R put(Stream *s, Op op) {
  if (!depth) return NO_CONTEXT;
  if (!s) return INVALID;  /* the default stream is never used by the harness */
  if (s->capture) { push_op(s->capture, op); return OK; }
  if ((op.kind == KERNEL || op.kind == ADD) && runs_elsewhere(s, &op)) return FAULT;
  push_op(&s->queue, op); eager(); return OK;
}

E R cuInit(unsigned f) { return flag("FAKE_CUDA_MODE", "no_device") ? NO_DEVICE : OK; }
E R cuDriverGetVersion(int *v) { const char *s = getenv("FAKE_CUDA_VERSION"); *v = s ? atoi(s) : 13000; return OK; }
E R cuGetErrorString(R e, const char **s) { *s = e ? "fake error" : "no error"; return OK; }
E R cuGetErrorName(R e, const char **s) { *s = "FAKE"; return OK; }
E R cuDeviceGetCount(int *n) { *n = flag("FAKE_CUDA_DEVICES", "2") ? 2 : 1; return OK; }
E R cuDeviceGet(int *d, int i) { int n; cuDeviceGetCount(&n); *d = i; return i < n ? OK : 101; }
E R cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Fake GPU", n); return OK; }
E R cuDeviceGetUuid(unsigned char *u, int d) { memset(u, 0xab, 16); u[15] = d; return OK; }
E R cuDeviceComputeCapability(int *a, int *b, int d) { *a = 9 + d; *b = 0; return OK; }
E R cuDeviceTotalMem_v2(size_t *n, int d) { *n = 8ull << 30; return OK; }
E R cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 + d : a == 76 ? 0 : a == 1 ? 1024 : 1; return OK; }
E R cuDeviceGetPCIBusId(char *s, int n, int d) { strncpy(s, "0000:00:00.0", n); return OK; }
E R cuDevicePrimaryCtxRetain(uintptr_t *c, int d) { *c = 0x1001; return OK; }
E R cuDevicePrimaryCtxRelease_v2(int d) { return OK; }
E R cuCtxPushCurrent_v2(uintptr_t c) { contexts[depth++] = c; return OK; }
E R cuCtxPopCurrent_v2(uintptr_t *c) { if (!depth) return NO_CONTEXT; depth--; if (c) *c = contexts[depth]; return OK; }
E R cuCtxGetCurrent(uintptr_t *c) { *c = depth ? contexts[depth - 1] : 0; return OK; }
E R cuCtxGetDevice(int *d) { *d = 0; return depth ? OK : NO_CONTEXT; }
E R cuCtxGetApiVersion(uintptr_t c, unsigned *v) { *v = 3020; return OK; }
E R cuCtxAttach(uintptr_t *c, unsigned f) { return cuCtxGetCurrent(c); }
E R cuCtxDetach(uintptr_t c) { return OK; }
E R cuCtxDestroy_v2(uintptr_t c) { return OK; }
E R cuCtxCreate_v4(uintptr_t *c, void *p, unsigned f, int d) { *c = 0x2001; return cuCtxPushCurrent_v2(*c); }
E R cuCtxSynchronize(void) {
  if (!depth) return NO_CONTEXT;
  for (Stream *s = streams; s; s = s->next) { R r = drain(s); if (r) return r; }
  return OK;
}
E R cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 7ull << 30; *t = 8ull << 30; return OK; }
E R cuMemAlloc_v2(P *p, size_t n) {
  if (!depth) return NO_CONTEXT;
  if (n > 1ull << 33) return OOM;
  void *q = malloc(n); memset(q, 0xff, n); live[MEMORY]++; *p = (uintptr_t)q; return OK;  /* 0xffffffff is NaN */
}
E R cuMemFree_v2(P p) { free((void *)(uintptr_t)p); live[MEMORY]--; return OK; }
E R cuMemHostAlloc(void **p, size_t n, unsigned f) { if (!depth) return NO_CONTEXT; if (n > 1ull << 33) return OOM; *p = malloc(n); live[PINNED]++; return OK; }
E R cuMemFreeHost(void *p) { free(p); live[PINNED]--; return OK; }
E R cuMemHostGetDevicePointer_v2(P *d, void *h, unsigned f) { *d = (uintptr_t)h; return OK; }
E R cuMemcpyHtoD_v2(P d, const void *s, size_t n) { memcpy((void *)(uintptr_t)d, s, n); return OK; }
E R cuMemcpyDtoH_v2(void *d, P s, size_t n) { memcpy(d, (void *)(uintptr_t)s, n); return OK; }
E R cuMemcpyHtoDAsync_v2(P d, const void *s, size_t n, Stream *q) {
  return put(q, (Op){.kind = COPY, .to = (void *)(uintptr_t)d, .from = s, .bytes = n}); }
E R cuMemcpyDtoHAsync_v2(void *d, P s, size_t n, Stream *q) {
  return put(q, (Op){.kind = COPY, .to = d, .from = (void *)(uintptr_t)s, .bytes = n}); }
E R cuStreamCreate(Stream **s, unsigned f) {
  if (!depth) return NO_CONTEXT;
  *s = calloc(1, sizeof(Stream)); (*s)->next = streams; streams = *s; live[STREAMS]++; return OK; }
E R cuStreamDestroy_v2(Stream *s) {
  drain(s);
  for (Stream **at = &streams; *at; at = &(*at)->next) if (*at == s) { *at = s->next; break; }
  free(s->queue.ops); free(s); live[STREAMS]--; return OK; }
E R cuStreamSynchronize(Stream *s) { return depth ? drain(s) : NO_CONTEXT; }
E R cuStreamQuery(Stream *s) { return s->head < s->queue.n ? NOT_READY : OK; }
E R cuStreamWaitEvent(Stream *s, Event *e, unsigned f) {
  return put(s, (Op){.kind = WAIT_EVENT, .event = e, .ticket = e->recorded}); }
E R cuStreamWaitValue32_v2(Stream *s, P word, uint32_t value, unsigned f) {
  if (flag("FAKE_CUDA_WAIT", "no")) return NOT_SUPPORTED;
  calls[3]++;
  return put(s, (Op){.kind = WAIT_VALUE, .word = (void *)(uintptr_t)word, .value = value}); }
E R cuEventCreate(Event **e, unsigned f) { if (!depth) return NO_CONTEXT; *e = calloc(1, sizeof(Event)); live[EVENTS]++; return OK; }
E R cuEventDestroy_v2(Event *e) { live[EVENTS]--; return OK; }  /* leaked on purpose: a queued record may still name it */
E R cuEventRecord(Event *e, Stream *s) {
  if (s && !s->capture) e->recorded++;
  return put(s, (Op){.kind = RECORD, .event = e, .ticket = e->recorded}); }
E R cuEventQuery(Event *e) { eager(); return e->done < e->recorded ? NOT_READY : OK; }
E R cuEventSynchronize(Event *e) {
  if (flag("FAKE_CUDA_FAULT", "yes")) return FAULT;
  for (int idle = 0; e->done < e->recorded;) {
    Stream *s = recorder(e, e->recorded);
    if (s && step(s)) { idle = 0; continue; }
    if (!s || ++idle > 3000) return STUCK;
    usleep(1000);
  }
  return OK; }
E R cuEventElapsedTime_v2(float *ms, Event *a, Event *b) {
  if (!a->recorded || !b->recorded) return 400;
  if (a->done < a->recorded || b->done < b->recorded) return NOT_READY;
  *ms = (float)((b->at_us - a->at_us) / 1000); return OK; }
E R cuStreamBeginCapture_v2(Stream *s, int mode) {
  if (flag("FAKE_CUDA_CAPTURE", "no")) return NOT_SUPPORTED;
  s->capture = calloc(1, sizeof(List)); s->broken = 0; return OK; }
E R cuStreamEndCapture(Stream *s, List **g) {
  List *got = s->capture; s->capture = 0; *g = 0;
  if (!got) return INVALID;
  if (s->broken) { free(got); return INVALIDATED; }
  live[GRAPHS]++; calls[2]++; *g = got; return OK; }
E R cuGraphInstantiateWithFlags(List **x, List *g, unsigned long long f) {
  if (flag("FAKE_CUDA_INSTANTIATE", "no")) return NOT_SUPPORTED;
  *x = calloc(1, sizeof(List)); for (size_t i = 0; i < g->n; i++) push_op(*x, g->ops[i]); live[GRAPHS]++; return OK; }
E R cuGraphLaunch(List *x, Stream *s) {
  calls[1]++;
  for (size_t i = 0; i < x->n; i++) { R r = put(s, x->ops[i]); if (r) return r; }
  return OK; }
E R cuGraphDestroy(List *g) { free(g->ops); free(g); live[GRAPHS]--; return OK; }
E R cuGraphExecDestroy(List *x) { return cuGraphDestroy(x); }

/* The only kernel of a module is taken for one that spins for as many cycles as its first parameter says. */
E R cuModuleLoadData(void **m, const void *image) {
  if (!depth) return NO_CONTEXT;
  if (flag("FAKE_CUDA_MODULE", "no")) return NOT_SUPPORTED;
  *m = malloc(1); live[MODULES]++; return OK; }
E R cuModuleUnload(void *m) { free(m); live[MODULES]--; return OK; }
E R cuModuleGetFunction(void **f, void *m, const char *name) { *f = m; return OK; }
E R cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   Stream *s, void **parameters, void **extra) {
  return put(s, (Op){.kind = SPIN, .bytes = *(uint64_t *)parameters[0]}); }

/* For the tests: put a kernel on a stream, count what lives, count what ran. */
E R fake_kernel(Stream *s, P in, P out, int n, int m, int k, const volatile int *shape) {
  return put(s, (Op){.kind = KERNEL, .from = (void *)(uintptr_t)in, .to = (void *)(uintptr_t)out, .n = n, .m = m, .k = k,
                     .shape = shape, .version = *shape}); }
E R fake_add(Stream *s, P in, P other, P out, int n, int k, int t0, int t1, int t2, const volatile int *shape) {
  return put(s, (Op){.kind = ADD, .from = (void *)(uintptr_t)in, .other = (void *)(uintptr_t)other,
                     .to = (void *)(uintptr_t)out, .n = n, .k = k, .types = {t0, t1, t2}, .shape = shape,
                     .version = *shape}); }
E R fake_call(Stream *s, void (*work)(int), int number, int us) {  /* calls back, whenever the stream comes to it */
  return put(s, (Op){.kind = CALL, .from = (const void *)work, .n = number, .m = us}); }
E R fake_is_capturing(Stream *s) { return s->capture != 0; }
E int fake_live(int kind) { return live[kind]; }
E int fake_depth(void) { return depth; }
E int64_t fake_calls(int kind) { return calls[kind]; }

E R cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t f, int *status) {
  static const char *suffixes[] = {"_v2", "_v4", "WithFlags", ""};
  char full[128];
  *at = 0;
  for (int i = 0; i < 4 && !*at; i++) { snprintf(full, sizeof full, "%s%s", name, suffixes[i]); *at = dlsym(RTLD_DEFAULT, full); }
  if (status) *status = *at ? 0 : 1;
  return *at ? OK : 500; }
E R cuGetProcAddress(const char *name, void **at, int version, uint64_t f) { return cuGetProcAddress_v2(name, at, version, f, 0); }

/* Symbols that PyCUDA's module names and the harness never calls. */
#define S(name) E R name(void) { return NOT_SUPPORTED; }
S(cuArray3DCreate_v2) S(cuArray3DGetDescriptor_v2) S(cuArrayCreate_v2) S(cuArrayDestroy) S(cuArrayGetDescriptor_v2)
S(cuCtxDisablePeerAccess) S(cuCtxEnablePeerAccess) S(cuCtxGetCacheConfig) S(cuCtxGetLimit) S(cuCtxGetSharedMemConfig)
S(cuCtxSetCacheConfig) S(cuCtxSetLimit) S(cuCtxSetSharedMemConfig) S(cuDeviceCanAccessPeer) S(cuDeviceGetByPCIBusId)
S(cuFuncGetAttribute) S(cuFuncSetAttribute) S(cuFuncSetBlockShape) S(cuFuncSetCacheConfig) S(cuFuncSetSharedSize)
S(cuIpcCloseMemHandle) S(cuIpcGetEventHandle) S(cuIpcGetMemHandle) S(cuIpcOpenEventHandle) S(cuIpcOpenMemHandle_v2)
S(cuLaunch) S(cuLaunchGrid) S(cuLaunchGridAsync) S(cuLinkAddData_v2) S(cuLinkAddFile_v2)
S(cuLinkComplete) S(cuLinkCreate_v2) S(cuLinkDestroy) S(cuMemAllocManaged) S(cuMemAllocPitch_v2)
S(cuMemGetAddressRange_v2) S(cuMemHostGetFlags) S(cuMemHostRegister_v2) S(cuMemHostUnregister) S(cuMemcpy2DAsync_v2)
S(cuMemcpy2DUnaligned_v2) S(cuMemcpy2D_v2) S(cuMemcpy3DAsync_v2) S(cuMemcpy3DPeer) S(cuMemcpy3DPeerAsync)
S(cuMemcpy3D_v2) S(cuMemcpyAtoA_v2) S(cuMemcpyAtoD_v2) S(cuMemcpyAtoH_v2) S(cuMemcpyDtoA_v2) S(cuMemcpyDtoDAsync_v2)
S(cuMemcpyDtoD_v2) S(cuMemcpyHtoA_v2) S(cuMemcpyPeer) S(cuMemcpyPeerAsync) S(cuMemsetD16Async) S(cuMemsetD16_v2)
S(cuMemsetD2D16Async) S(cuMemsetD2D16_v2) S(cuMemsetD2D32Async) S(cuMemsetD2D32_v2) S(cuMemsetD2D8Async)
S(cuMemsetD2D8_v2) S(cuMemsetD32Async) S(cuMemsetD32_v2) S(cuMemsetD8Async) S(cuMemsetD8_v2)
S(cuModuleGetGlobal_v2) S(cuModuleGetSurfRef) S(cuModuleGetTexRef) S(cuModuleLoad)
S(cuModuleLoadDataEx) S(cuParamSetSize) S(cuParamSetTexRef) S(cuParamSetf) S(cuParamSeti)
S(cuParamSetv) S(cuProfilerInitialize) S(cuProfilerStart) S(cuProfilerStop) S(cuStreamAttachMemAsync)
S(cuSurfRefGetArray) S(cuSurfRefSetArray) S(cuTexRefCreate) S(cuTexRefDestroy) S(cuTexRefGetAddressMode)
S(cuTexRefGetAddress_v2) S(cuTexRefGetArray) S(cuTexRefGetFilterMode) S(cuTexRefGetFlags) S(cuTexRefGetFormat)
S(cuTexRefSetAddress2D_v3) S(cuTexRefSetAddressMode) S(cuTexRefSetAddress_v2) S(cuTexRefSetArray)
S(cuTexRefSetFilterMode) S(cuTexRefSetFlags) S(cuTexRefSetFormat)
