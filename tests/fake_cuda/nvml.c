/* NVIDIA's management library as far as the harness asks it: FAKE_DRIVER names the driver; empty, it has none. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, DRIVER_NOT_LOADED = 9, INSUFFICIENT_SIZE = 7 };
static int users;

static const char *version(void) { const char *v = getenv("FAKE_DRIVER"); return v ? v : "580.65.06"; }

int nvmlInit_v2(void) { if (!*version()) return DRIVER_NOT_LOADED; users++; return OK; }
int nvmlShutdown(void) { if (!users) return UNINITIALIZED; users--; return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  if (!users) return UNINITIALIZED;
  if (length <= strlen(version())) return INSUFFICIENT_SIZE;
  strcpy(text, version());
  return OK;
}
int fake_nvml_users(void) { return users; }
