#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

extern char **environ;

void restore_signals(void) {
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

void set_window(const struct command *command, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  if (command->is_terminal) ioctl(command->input, TIOCSWINSZ, &size);
}

static void set_variables(char **variables) {
  for (; variables && *variables; variables++)
    if (strchr(*variables, '=')) putenv(*variables);
}

struct ends { /* the descriptors of the command's side, and of ours */
  int theirs[3], ours[3];
};

static void close_all(struct ends *ends) {
  for (int at = 0; at < 3; at++) {
    if (ends->theirs[at] >= 0) close(ends->theirs[at]);
    if (ends->ours[at] >= 0 && (at == 0 || ends->ours[at] != ends->ours[at - 1])) close(ends->ours[at]);
    ends->theirs[at] = ends->ours[at] = -1;
  }
}

static int open_pipes(struct ends *ends, int wants_input) {
  for (int at = 0; at < 3; at++) {
    int pair[2];
    if (at == 0 && !wants_input) {
      if ((ends->theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) return errno;
      continue;
    }
    if (pipe2(pair, O_CLOEXEC) < 0) return errno;
    ends->theirs[at] = pair[at ? 1 : 0];
    ends->ours[at] = pair[at ? 0 : 1];
    fcntl(ends->ours[at], F_SETFL, O_NONBLOCK);
  }
  return 0;
}

/* By no path of the tenant's: the other end comes from the first one's descriptor. */
static int open_terminal(struct ends *ends, uint16_t rows, uint16_t columns) {
  int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (master < 0) return errno;
  ends->ours[0] = ends->ours[1] = master;
  int unlocked = 0;
  if (ioctl(master, TIOCSPTLCK, &unlocked) < 0) return errno;
  int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0) return errno;
  ends->theirs[0] = slave;
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  ioctl(master, TIOCSWINSZ, &size);
  return 0;
}

static void report(int pipe, char stage) {
  uint8_t words[5];
  words[0] = (uint8_t)stage;
  put_u32(words + 1, (uint32_t)errno);
  if (write(pipe, words, sizeof words) < 0) _exit(126);
  _exit(127);
}

static void run(const struct request *request, const struct ends *ends, int failed) {
  restore_signals();
  setsid();
  if (request->is_terminal) ioctl(ends->theirs[0], TIOCSCTTY, 0);
  for (int at = 0; at < 3; at++)
    if (dup2(request->is_terminal ? ends->theirs[0] : ends->theirs[at], at) < 0) report(failed, AT_FORK);
  if (chdir(request->directory ? request->directory : working_directory) < 0) report(failed, AT_DIRECTORY);
  set_variables(request->environment);
  execvp(request->argv[0], request->argv);
  int error = errno;
  struct stat is;
  if (error == EACCES && strchr(request->argv[0], '/') && !stat(request->argv[0], &is) && S_ISDIR(is.st_mode))
    error = EISDIR;
  errno = error;
  report(failed, AT_EXECVE);
}

int start_command(struct command *command, const struct request *request, char *stage) {
  struct ends ends = {{-1, -1, -1}, {-1, -1, -1}};
  int failed[2];
  *stage = AT_FORK;
  int error = request->is_terminal ? open_terminal(&ends, request->rows, request->columns)
                                   : open_pipes(&ends, request->wants_input);
  if (!error && pipe2(failed, O_CLOEXEC) < 0) error = errno;
  if (error) {
    close_all(&ends);
    return error;
  }
  pid_t pid = fork();
  if (pid == 0) run(request, &ends, failed[1]);
  error = pid < 0 ? errno : 0;
  close(failed[1]);
  for (int at = 0; at < 3; at++)
    if (ends.theirs[at] >= 0) close(ends.theirs[at]), ends.theirs[at] = -1;
  uint8_t words[5];
  ssize_t got;
  do got = pid > 0 ? read(failed[0], words, sizeof words) : 0; /* ends with execve, which closes its other end */
  while (got < 0 && errno == EINTR);
  close(failed[0]);
  if (got == sizeof words) {
    *stage = (char)words[0];
    error = (int)get_u32(words + 1);
  }
  if (error) {
    close_all(&ends);
    return error;
  }
  *command = (struct command){.pid = pid, .input = ends.ours[0], .output = ends.ours[1], .errors = ends.ours[2],
                              .is_terminal = request->is_terminal, .children = command->children};
  return 0;
}
