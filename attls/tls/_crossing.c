/*
 * One turn of the byte path in one call: read a socket, pass the bytes through the TLS library, write the other socket.
 *
 * `Direct` in crossing.py does the same by single calls and says what they mean; this is for speed alone, and optional.
 * Everything that is not the common case goes back to Python: the end of a stream, errors of sockets and of the library,
 * what a receiver did not take, answers that the library wants to give.
 *
 * The TLS library is inside another extension module, which hides its names: its functions come as addresses when a
 * Crossing is made. An engine's objects come as addresses with every call and are not kept. The two buffers belong to
 * Python objects; the views that are held on them keep them where they are. Nothing is allocated on the way but the
 * tuple that is returned. The GIL stays held: one thread carries all bytes, and nothing here waits.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD 16384  /* plain bytes in the largest TLS record (RFC 8446 section 5.1) */
#define WANT_READ 2   /* SSL_ERROR_WANT_READ */

/* How a turn ends for the library. Values at or below zero are what the library returned with an error. */
#define WHOLE 1       /* nothing is left to do */
#define ANSWERS 2     /* it has something to say by itself */

typedef struct {
    PyObject_HEAD
    int (*ssl_read)(void *ssl, void *into, int most);
    int (*ssl_write)(void *ssl, const void *from, int count);
    int (*ssl_error)(const void *ssl, int result);
    int (*bio_read)(void *bio, void *into, int most);
    int (*bio_write)(void *bio, const void *from, int count);
    long (*bio_held)(void *bio, char **start);
    ssize_t (*receive)(int descriptor, void *into, size_t most, int flags);
    ssize_t (*send)(int descriptor, const void *from, size_t count, int flags);
    Py_buffer received, made;
    int piece; /* what a memory BIO is given at once: it grows to that and never shrinks */
} Crossing;

#define FUNCTIONS 8

typedef struct {
    void *ssl, *into, *from;
} Engine;

static Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b)
{
    return a < b ? a : b;
}

/* Read a socket into the buffer; returns the count, 0 at the end of the stream, or the error as a negative number. */
static Py_ssize_t receive(Crossing *self, int descriptor, Py_ssize_t most)
{
    ssize_t count;
    do
        count = self->receive(descriptor, self->received.buf, (size_t)most, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

/* Write what has been made; returns how much the socket took, or the error as a negative number. */
static Py_ssize_t hand_on(Crossing *self, int descriptor, Py_ssize_t total, int flags)
{
    ssize_t sent;
    if (total == 0)
        return 0;
    do
        sent = self->send(descriptor, self->made.buf, (size_t)total, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    return sent;
}

static PyObject *turn(Py_ssize_t count, Py_ssize_t total, Py_ssize_t sent, int ending)
{
    const Py_ssize_t figures[] = {count, total, sent};
    PyObject *result = PyTuple_New(4);
    if (result == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < 4; i++) {
        PyObject *item = i < 3 ? PyLong_FromSsize_t(figures[i]) : ending == WHOLE ? Py_NewRef(Py_None)
                                                                                  : PyLong_FromLong(ending);
        if (item == NULL || PyTuple_SetItem(result, i, item) < 0) {
            Py_DECREF(result);
            return NULL;
        }
    }
    return result;
}

/* Read the arguments of a turn: the addresses of an engine's three parts in a bytes object, then `wanted` numbers. */
static int arguments(PyObject *const *args, Py_ssize_t given, int numbers[], Py_ssize_t wanted, Engine *engine)
{
    if (given != wanted + 1) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are needed, not %zd", wanted + 1, given);
        return -1;
    }
    char *addresses;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(args[0], &addresses, &size) < 0)
        return -1;
    if (size != (Py_ssize_t)sizeof *engine) {
        PyErr_SetString(PyExc_ValueError, "an engine has three addresses");
        return -1;
    }
    memcpy(engine, addresses, sizeof *engine);
    if (engine->ssl == NULL || engine->into == NULL || engine->from == NULL) {
        PyErr_SetString(PyExc_ValueError, "an address of the engine is zero");
        return -1;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        long number = PyLong_AsLong(args[i + 1]);
        if (number == -1 && PyErr_Occurred())
            return -1;
        if (number < INT_MIN || number > INT_MAX) {
            PyErr_SetString(PyExc_OverflowError, "an argument is too large");
            return -1;
        }
        numbers[i] = (int)number;
    }
    return 0;
}

PyDoc_STRVAR(inward_doc, "inward(engine, net, app): network to program; returns (received, made, sent, ending).");

static PyObject *inward(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    Crossing *self = (Crossing *)object;
    Engine engine;
    int numbers[2];
    if (arguments(args, given, numbers, 2, &engine) < 0)
        return NULL;
    char *received = self->received.buf, *made = self->made.buf, *start;
    Py_ssize_t count = receive(self, numbers[0], self->received.len), total = 0;
    int ending = WHOLE;
    for (Py_ssize_t done = 0; done < count && ending > 0;) {
        int piece = (int)smaller(self->piece, count - done);
        if (self->bio_write(engine.into, received + done, piece) != piece)
            return PyErr_NoMemory(); /* nothing else can be wrong with a memory BIO; the connection ends */
        done += piece;
        /* The library takes from its BIO no more than one record: when that is empty there is nothing to ask for. */
        while (self->bio_held(engine.into, &start) > 0) {
            if (total > self->made.len - RECORD) {
                PyErr_SetString(PyExc_IndexError, "no room for another record");
                return NULL;
            }
            int plain = self->ssl_read(engine.ssl, made + total, RECORD);
            if (plain <= 0) {
                if (self->ssl_error(engine.ssl, plain) != WANT_READ)
                    ending = plain;
                else if (self->bio_held(engine.from, &start) > 0)
                    ending = ANSWERS;
                break;
            }
            total += plain;
        }
    }
    return turn(count, total, hand_on(self, numbers[1], total, 0), ending);
}

PyDoc_STRVAR(outward_doc, "outward(engine, app, net, flags, most): program to network; returns as inward does.");

static PyObject *outward(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    Crossing *self = (Crossing *)object;
    Engine engine;
    int numbers[4];
    if (arguments(args, given, numbers, 4, &engine) < 0)
        return NULL;
    if (numbers[3] <= 0) {
        PyErr_SetString(PyExc_ValueError, "at least one byte must be wanted");
        return NULL;
    }
    char *received = self->received.buf, *made = self->made.buf;
    Py_ssize_t count = receive(self, numbers[0], smaller(numbers[3], self->received.len)), total = 0;
    for (Py_ssize_t done = 0; done < count;) {
        int plain = self->ssl_write(engine.ssl, received + done, (int)smaller(RECORD, count - done));
        if (plain <= 0)
            return turn(count, 0, 0, plain);
        done += plain;
        int sealed = self->bio_read(engine.from, made + total, (int)smaller(INT_MAX, self->made.len - total));
        if (sealed > 0) /* without room the rest stays in the BIO and goes with the next turn */
            total += sealed;
    }
    return turn(count, total, hand_on(self, numbers[1], total, numbers[2]), WHOLE);
}

static void release(PyObject *object)
{
    Crossing *self = (Crossing *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->received.obj != NULL)
        PyBuffer_Release(&self->received);
    if (self->made.obj != NULL)
        PyBuffer_Release(&self->made);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(crossing_doc,
             "Crossing(received, made, piece, functions): the two buffers, the most bytes that a BIO is given at once,\n"
             "and the addresses of SSL_read, SSL_write, SSL_get_error, BIO_read, BIO_write, BIO_get_mem_data, recv, send\n"
             "(zero for the C library's own, for these two).");

static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *received, *made, *functions;
    void *address[FUNCTIONS];
    int piece;
    if (names != NULL && PyDict_Size(names) != 0) {
        PyErr_SetString(PyExc_TypeError, "arguments have no names");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOiO!", &received, &made, &piece, &PyTuple_Type, &functions))
        return NULL;
    if (piece <= 0 || PyTuple_Size(functions) != FUNCTIONS) {
        PyErr_SetString(PyExc_ValueError, "a piece has at least one byte, and there are eight functions");
        return NULL;
    }
    for (int i = 0; i < FUNCTIONS; i++) {
        address[i] = PyLong_AsVoidPtr(PyTuple_GetItem(functions, i));
        if (PyErr_Occurred())
            return NULL;
        if (address[i] == NULL && i < 6) {
            PyErr_SetString(PyExc_ValueError, "an address of the library is zero");
            return NULL;
        }
    }
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Crossing *self = (Crossing *)make(type, 0); /* zeroed */
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(received, &self->received, PyBUF_WRITABLE) < 0 ||
        PyObject_GetBuffer(made, &self->made, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->piece = piece;
    self->receive = recv;
    self->send = send;
    memcpy(&self->ssl_read, address, 6 * sizeof *address); /* the six members in their order */
    if (address[6] != NULL)
        memcpy(&self->receive, &address[6], sizeof *address);
    if (address[7] != NULL)
        memcpy(&self->send, &address[7], sizeof *address);
    return (PyObject *)self;
}

static PyMethodDef methods[] = {
    {"inward", (PyCFunction)(void (*)(void))inward, METH_FASTCALL, inward_doc},
    {"outward", (PyCFunction)(void (*)(void))outward, METH_FASTCALL, outward_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)crossing_doc}, {Py_tp_new, create}, {Py_tp_dealloc, release}, {Py_tp_methods, methods}, {0, NULL},
};

static PyType_Spec spec = {"attls.tls._crossing.Crossing", sizeof(Crossing), 0, Py_TPFLAGS_DEFAULT, slots};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "attls.tls._crossing", "The byte path in C.", 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__crossing(void);

PyMODINIT_FUNC PyInit__crossing(void)
{
    return PyModuleDef_Init(&module);
}
