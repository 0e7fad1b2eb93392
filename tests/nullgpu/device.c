/* A GPU that does nothing, and counts what it was asked: the part of the CUDA runtime that must answer more than "done".

   Preloaded before torch. The rest of the libraries' functions are stubs that build.py writes by name. Device memory and page-locked
   memory are two ranges of addresses, so that a pointer tells by itself what it is; pages are taken when they are touched. What is
   freed goes back to the system, its addresses are not used again. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cuda_runtime_api.h"
#include "cudnn_version.h"

#define PAGE ((size_t)2 << 20)
#define ARENA ((size_t)1 << 44) /* a growing segment reserves as many addresses as the device has memory, for each stream */
#define PAGEABLE_LIMIT 65536 /* up to here the driver copies pageable memory before it returns, and nobody waits */

#define SMALL_COPY 1024            /* a number, or a few */

/* Read and set to zero by the tests. */
long null_launches, null_waits, null_event_waits, null_large_pageable, null_to_device, null_to_host, null_bytes;
long null_replays;                 /* of captured graphs */
long null_collectives, null_order; /* how many, and a hash of what each was, in order */
long null_in_turn;                 /* copies to the device that wait in the computing's stream for all before them */
long null_copies;                  /* whether the device keeps what is copied to it: set by the tests, or NULL_COPIES at the start */
long null_foreign;                 /* times that a device other than that of the process's local rank was chosen */

typedef struct {
  char *start;
  size_t next;              /* first free page */
  unsigned num_pages[ARENA / PAGE]; /* of the block that begins at a page */
} Arena;

static Arena device_memory, locked_memory;
static __thread int last_error;

static size_t device_bytes(void) {
  const char *gib = getenv("NULL_GIB");
  return (size_t)((gib ? atof(gib) : 16) * (1 << 30));
}

static int number_of(const char *key, int otherwise) {
  const char *word = getenv(key);
  return word ? atoi(word) : otherwise;
}

__attribute__((constructor)) static void begin(void) { null_copies = number_of("NULL_COPIES", 0); }

static void *take(Arena *arena, size_t bytes) {
  static int is_busy;
  while (__atomic_test_and_set(&is_busy, __ATOMIC_ACQUIRE)) {
  }
  if (!arena->start)
    arena->start = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  size_t pages = (bytes + PAGE - 1) / PAGE, first = arena->next;
  arena->next += pages ? pages : 1;
  arena->num_pages[first] = (unsigned)pages;
  __atomic_clear(&is_busy, __ATOMIC_RELEASE);
  return arena->start + first * PAGE;
}

static int holds(const Arena *arena, const void *pointer) {
  return arena->start && (char *)pointer >= arena->start && (char *)pointer < arena->start + ARENA;
}

static size_t give_back(Arena *arena, void *pointer) {
  if (!holds(arena, pointer)) return 0;
  size_t bytes = arena->num_pages[((char *)pointer - arena->start) / PAGE] * PAGE;
  if (bytes) madvise(pointer, bytes, MADV_DONTNEED);
  return bytes;
}

static int charge(size_t bytes) {
  if (__atomic_add_fetch(&null_bytes, bytes, __ATOMIC_SEQ_CST) <= (long)device_bytes()) return 0;
  __atomic_sub_fetch(&null_bytes, bytes, __ATOMIC_SEQ_CST);
  return 2; /* out of memory, for the runtime and the driver alike */
}

static size_t rounded(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

/* ------------------------------------------------------------------------------------------------------------- memory */

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  if (charge(rounded(bytes))) return last_error = cudaErrorMemoryAllocation;
  *pointer = take(&device_memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
  __atomic_sub_fetch(&null_bytes, give_back(&device_memory, pointer), __ATOMIC_SEQ_CST);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  *pointer = take(&locked_memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *pointer) {
  give_back(&locked_memory, pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  *total = device_bytes();
  *free = *total - null_bytes;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
  memset(found, 0, sizeof *found);
  if (holds(&device_memory, pointer)) {
    found->type = cudaMemoryTypeDevice;
    found->devicePointer = (void *)pointer;
  } else {
    found->type = holds(&locked_memory, pointer) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    found->hostPointer = (void *)pointer;
  }
  return cudaSuccess;
}

/* Kernels do nothing. Device memory stays zero, too, unless a test asks for copies: DDP compares the shapes of parameters. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  int is_up = holds(&device_memory, to), is_down = holds(&device_memory, from);
  if (is_up && null_copies) memmove(to, from, bytes);
  if (is_up && is_down) return cudaSuccess;
  if (is_up) {
    null_to_device++;
    if (!stream && bytes > SMALL_COPY) null_in_turn++;
    if (!holds(&locked_memory, from) && bytes > PAGEABLE_LIMIT) null_large_pageable++;
    return cudaSuccess;
  }
  null_to_host++;
  if (!holds(&locked_memory, to)) {
    null_waits++;
    if (bytes > PAGEABLE_LIMIT) null_large_pageable++;
  }
  if (null_copies)
    memmove(to, from, bytes);
  else
    memset(to, 0, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  null_waits++;
  return cudaMemcpyAsync(to, from, bytes, kind, NULL);
}

/* Of the driver, by which torch enlarges segments. */
static int reserve(void **pointer, size_t bytes, size_t alignment, void *at, unsigned long long flags) {
  *pointer = take(&device_memory, bytes);
  return 0;
}
static int create(unsigned long long *handle, size_t bytes, const void *how, unsigned long long flags) {
  *handle = bytes;
  return charge(bytes);
}
static int release(unsigned long long handle) {
  __atomic_sub_fetch(&null_bytes, handle, __ATOMIC_SEQ_CST);
  return 0;
}
static int granularity(size_t *bytes, const void *how, int option) {
  *bytes = PAGE;
  return 0;
}
static int attribute(int *value, int which, int device) {
  *value = 1;
  return 0;
}
static int explain(int error, const char **words) {
  *words = error == 2 ? "out of memory" : "null";
  return 0;
}
static int nothing(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
  static const struct {
    const char *name;
    void *function;
  } known[] = {{"cuMemAddressReserve", reserve},  {"cuMemCreate", create},           {"cuMemRelease", release},
               {"cuMemGetAllocationGranularity", granularity}, {"cuDeviceGetAttribute", attribute}, {"cuGetErrorString", explain}};
  *found = nothing;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(name, known[i].name)) *found = known[i].function;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

/* ------------------------------------------------------------------------------------------------------------- device */

static __thread int chosen;

/* NULL_DRIVER is the version of CUDA that the driver knows, such as 12020. */
static int driver(void) { return number_of("NULL_DRIVER", CUDART_VERSION); }

cudaError_t cudaGetDeviceCount(int *count) {
  *count = driver() < CUDART_VERSION ? 0 : number_of("NULL_DEVICES", 1);
  return *count ? cudaSuccess : (last_error = cudaErrorInsufficientDriver);
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = number_of("NULL_DEVICES", 1);
  return 0;
}
cudaError_t cudaGetDevice(int *device) {
  *device = chosen;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device != number_of("LOCAL_RANK", 0)) null_foreign++;
  chosen = device;
  return cudaSuccess;
}
cudaError_t cudaGetLastError(void) {
  int error = last_error;
  last_error = 0;
  return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "null"; }
cudaError_t cudaDriverGetVersion(int *version) {
  *version = driver();
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

/* As an H200 answers, where torch asks. */
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *it, int device) {
  memset(it, 0, sizeof *it);
  strcpy(it->name, "Null GPU");
  it->major = 9;
  it->totalGlobalMem = device_bytes();
  it->multiProcessorCount = 132;
  it->warpSize = 32;
  it->maxThreadsPerBlock = it->maxThreadsDim[0] = it->maxThreadsDim[1] = 1024;
  it->maxThreadsDim[2] = 64;
  it->maxGridSize[0] = 2147483647;
  it->maxGridSize[1] = it->maxGridSize[2] = 65535;
  it->maxThreadsPerMultiProcessor = 2048;
  it->sharedMemPerBlock = 49152;
  it->sharedMemPerBlockOptin = 232448;
  it->sharedMemPerMultiprocessor = 233472;
  it->regsPerBlock = it->regsPerMultiprocessor = 65536;
  it->l2CacheSize = 50 << 20;
  it->textureAlignment = 512;
  it->concurrentKernels = it->unifiedAddressing = it->canMapHostMemory = 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    default: *value = 1;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
  *priority = 0;
  return cudaSuccess;
}
/* A capture is of the whole process: passes run in torch's own threads, too. What it holds is not kept; a replay is one launch. */
static int is_capturing;
static unsigned long long captures;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  return is_capturing = 1, captures++, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  *graph = calloc(1, 4096);
  return is_capturing = 0, cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *replayed, cudaGraph_t graph, unsigned long long flags) {
  *replayed = calloc(1, 4096);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *replayed, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(replayed, graph, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t replayed, cudaStream_t stream) { return null_launches++, null_replays++, cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = is_capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
  if (status) cudaStreamIsCapturing(stream, status);
  if (id) *id = is_capturing ? captures : 0;
  if (count) *count = 0;
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
  *ms = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) { return null_waits++, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return null_waits++, cudaSuccess; }
/* Waits for what was asked of the device up to a point, while it works at what came later. */
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return null_event_waits++, cudaSuccess; }

/* ------------------------------------------------------------------------------------------------------------ kernels */

static __thread struct {
  dim3 grid, block;
  size_t shared;
  void *stream;
} pushed;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *(void **)stream = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) {
  static void *handle[4];
  return handle;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024;
  found->numRegs = 32;
  found->binaryVersion = found->ptxVersion = 90;
  found->maxDynamicSharedSizeBytes = 232448;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads, size_t shared) {
  *blocks = 2;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads, size_t shared,
                                                                   unsigned flags) {
  *blocks = 2;
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol) {
  static char somewhere[1 << 16];
  *pointer = somewhere;
  return cudaSuccess;
}

/* -------------------------------------------------------------------------------------------------- cuDNN and cuBLASLt */

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion(void) { return CUDART_VERSION; }
int cudnnGetProperty(int which, int *value) {
  *value = which == 0 ? CUDNN_MAJOR : which == 1 ? CUDNN_MINOR : CUDNN_PATCHLEVEL;
  return 0;
}
int cudnnBackendCreateDescriptor(int kind, void **descriptor) {
  *descriptor = calloc(1, 64);
  return 0;
}
/* One of everything, the numbers of which are zero; no notes on how it computes. The types of attributes as cudnn_graph.h has them. */
enum { INT64 = 3, NUMERICAL_NOTE = 11, BEHAVIOR_NOTE = 19 };
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *count, void *values) {
  int is_note = type == NUMERICAL_NOTE || type == BEHAVIOR_NOTE;
  if (count) *count = !is_note;
  if (values && wanted > 0 && type == INT64) *(int64_t *)values = 0;
  return 0;
}
size_t cublasLtGetVersion(void) { return 130101; }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *how, void *a, void *b, void *c, void *d, void *preference, int wanted,
                                   void *results, int *count) {
  if (count) *count = 1;
  return 0;
}

/* --------------------------------------------------------------------------------------------------------------- NCCL */

/* nccl.h asks for the compiler of CUDA, so its types are written as what they are: whole numbers and pointers. */
static int note(int kind, size_t count, int type) {
  null_collectives++;
  null_order = (((null_order * 31 + kind) * 1000003 + (long)count) * 31 + type) & 0x7fffffffffffffff;
  null_launches++;
  return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm,
                           void *stream) {
  return note(1, count, type);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, void *comm,
                           void *stream) {
  return note(2, count, type);
}
int ncclBcast(void *it, size_t count, int type, int root, void *comm, void *stream) {
  return note(2, count, type);
}
int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm, void *stream) {
  static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  for (int rank = 0; null_copies && rank < number_of("WORLD_SIZE", 1); rank++) /* as if all had sent the same */
    memmove((char *)to + rank * count * sizes[type], from, count * sizes[type]);
  return note(3, count, type);
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, void *comm,
                               void *stream) {
  return note(4, count, type);
}
int ncclGetVersion(int *version) { return *version = 22907, 0; }
int ncclCommGetAsyncError(void *comm, int *error) { return *error = 0, 0; }
int ncclCommCount(const void *comm, int *count) { return *count = number_of("WORLD_SIZE", 1), 0; }
int ncclCommUserRank(const void *comm, int *rank) { return *rank = number_of("RANK", 0), 0; }
