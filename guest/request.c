#include "guest.h"
#include "kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A request is a list of items: tag (1 byte), length (4, big endian), bytes. */

static char *copy_text(const uint8_t *bytes, size_t length) {
  if (memchr(bytes, 0, length)) return NULL;
  char *text = malloc(length + 1);
  if (!text) return NULL;
  memcpy(text, bytes, length);
  text[length] = 0;
  return text;
}

static uint8_t *copy_bytes(const uint8_t *bytes, size_t length) {
  uint8_t *copy = malloc(length + 1);
  if (copy) memcpy(copy, bytes, length);
  return copy;
}

static int append(char ***list, size_t *count, const uint8_t *bytes, size_t length) {
  if (*count >= MAX_WORDS) return E2BIG;
  char **grown = realloc(*list, (*count + 2) * sizeof **list);
  if (!grown) return ENOMEM;
  *list = grown;
  char *text = copy_text(bytes, length);
  if (!text) return EINVAL;
  grown[(*count)++] = text;
  grown[*count] = NULL;
  return 0;
}

int parse_request(struct request *request, const uint8_t *payload, size_t length) {
  size_t arguments = 0, variables = 0;
  memset(request, 0, sizeof *request);
  while (length) {
    if (length < 5) return EINVAL;
    char tag = (char)payload[0];
    size_t size = get_u32(payload + 1);
    if (size > length - 5) return EINVAL;
    const uint8_t *bytes = payload + 5;
    int error = 0;
    switch (tag) {
      case 'a': error = append(&request->argv, &arguments, bytes, size); break;
      case 'e': error = append(&request->environment, &variables, bytes, size); break;
      case 'd':
        request->directory = copy_text(bytes, size);
        if (!request->directory) error = EINVAL;
        break;
      case 'k': /* its id, and whether the connection gets none of its output */
        if (size != ID_BYTES + 1) return EINVAL;
        if (!(request->id = copy_bytes(bytes, ID_BYTES))) return ENOMEM;
        request->is_silent = bytes[ID_BYTES] != 0;
        break;
      case 'n':
        if (size > NOTE_BYTES) return EINVAL;
        if (!(request->note = copy_bytes(bytes, size))) return ENOMEM;
        request->note_length = size;
        break;
      case 'i': request->wants_input = 1; break;
      case 'u':
        if (size != 4 || get_u32(bytes) > MAX_FIRST_INPUT) return EINVAL;
        request->first_input = get_u32(bytes);
        break;
      case 'o':
        if (size != 4) return EINVAL;
        request->timeout_ms = get_u32(bytes);
        break;
      case 't':
        if (size != 4) return EINVAL;
        request->is_terminal = 1;
        request->rows = (uint16_t)(bytes[0] << 8 | bytes[1]);
        request->columns = (uint16_t)(bytes[2] << 8 | bytes[3]);
        break;
      default: return EINVAL;
    }
    if (error) return error;
    payload += 5 + size;
    length -= 5 + size;
  }
  return request->argv && request->argv[0][0] ? 0 : EINVAL;
}
