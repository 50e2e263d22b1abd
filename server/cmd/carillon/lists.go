package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

type listsCmd struct {
	Upload listsUploadCmd `cmd:"" help:"Upload a list of users for tasks."`
	List   listsListCmd   `cmd:"" help:"List the uploaded lists."`
	Show   listsShowCmd   `cmd:"" help:"Show what is known of a list."`
	Delete listsDeleteCmd `cmd:"" help:"Forget a list."`
}

type listsUploadCmd struct {
	publicFlags
	File   string `arg:"" help:"The file, CSV or NDJSON; - is standard input."`
	Name   string `help:"A name for people."`
	Strict bool   `help:"Make nothing if a line is wrong."`
	JSON   bool   `name:"json" help:"Print the answer as it came."`
}

// Help is shown under --help.
func (listsUploadCmd) Help() string {
	return `Uploads up to a million users. A CSV has the names of its columns in the first line; one of them is "user", the others are
variables for templates:

    user,first_name
    alice,Alice

In NDJSON each line is an object: {"user":"alice","first_name":"Alice"}. Which of both the file is its first character shows.

Lines that are wrong are named and passed over, with --strict they keep the list from being made. A list never changes, and is kept for
seven days after it was used last. An upload that is broken off leaves nothing. Standard output has the list's id alone. The API key
needs the scope tasks:write.

Example:

    carillon lists upload customers.csv --name "Customers in Berlin"`
}

// Run executes the command.
func (c *listsUploadCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	list, answer, err := upload(ctx, a, t, c.File, c.Name, c.Strict)
	if err != nil {
		return err
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(answer))
		return nil
	}
	list.report(a)
	a.print("%s", printable(list.ID))
	return nil
}

// uploadedList is what the commands read of the answer to an upload.
type uploadedList struct {
	ID         string    `json:"id"`
	Users      int       `json:"users"`
	Variables  []string  `json:"variables"`
	Duplicates int       `json:"duplicates"`
	BadLines   int       `json:"bad_lines"`
	Errors     []badLine `json:"errors"`
}

// badLine is a line that was passed over.
type badLine struct {
	Line   int    `json:"line"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// report tells people what the list holds, and what of the file it does not.
func (l *uploadedList) report(a *app) {
	for _, e := range l.Errors {
		text := fmt.Sprintf("line %d: %s", e.Line, e.Code)
		if e.Detail != "" {
			text += ": " + e.Detail
		}
		a.say("%s", printable(text))
	}
	if more := l.BadLines - len(l.Errors); more > 0 {
		a.say("and %s more that %s wrong", plural(more, "line"), isOrAre(more))
	}
	text := fmt.Sprintf("made list %s of %s", l.ID, plural(l.Users, "user"))
	if len(l.Variables) > 0 {
		text += ", with the variables " + strings.Join(l.Variables, ", ")
	}
	if l.BadLines > 0 {
		text += fmt.Sprintf("; %s wrong and passed over", plural(l.BadLines, "line"))
	}
	if l.Duplicates > 0 {
		text += fmt.Sprintf("; %s stood in it again, the first line counts", plural(l.Duplicates, "user"))
	}
	a.say("%s", printable(text))
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// uploadQuiet is how long an upload may stand still, and how long its answer may take.
const uploadQuiet = 2 * time.Minute

var errUploadQuiet = fmt.Errorf("the server took nothing for %v", uploadQuiet)

// upload uploads a file of users, shows how far it is, and returns the list that was made, and the answer as it came.
func upload(ctx context.Context, a *app, t target, path, name string, strict bool) (*uploadedList, []byte, error) {
	in, size := a.stdin, int64(-1)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		in = f
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &uploadBody{in: bufio.NewReaderSize(in, 64<<10), size: size, shown: newProgress(a.stderr)}
	media, err := body.media()
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	body.quiet = time.AfterFunc(uploadQuiet, func() { cancel(errUploadQuiet) })
	defer body.stop()

	query := make(url.Values)
	if name != "" {
		query.Set("name", name)
	}
	if strict {
		query.Set("strict", "true")
	}
	at := strings.TrimSuffix("/v1/lists?"+query.Encode(), "?")
	// Nothing is asked for before it is sent (Expect: 100-continue): servers in Go reset such a connection when they refuse in the midst of a body, and the
	// refusal would be lost.
	answer, err := t.readAll(ctx, http.MethodPost, at, body, size, http.Header{"Content-Type": {media}})
	body.stop()
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errUploadQuiet):
		return nil, nil, fmt.Errorf("upload %s: %w", path, errUploadQuiet)
	case err != nil && ctx.Err() != nil:
		return nil, nil, fmt.Errorf("upload %s: you broke it off; no list was made", path)
	case err != nil:
		return nil, nil, fmt.Errorf("upload %s: %w", path, err)
	}
	var l uploadedList
	if err := json.Unmarshal(answer, &l); err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	return &l, answer, nil
}

// uploadBody is a file on its way: it shows how far it is, and puts off the end of patience as it goes on. Whoever sends it may still read of it when the answer is
// there, if that is a refusal.
type uploadBody struct {
	in    *bufio.Reader
	size  int64 // -1: nobody knows
	sent  int64
	shown *progress
	quiet *time.Timer

	mu      sync.Mutex
	stopped bool // nothing is shown any more; guarded by mu
}

// stop ends what is shown, and what is read.
func (b *uploadBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		b.shown.end()
	}
	b.quiet.Stop()
}

// media returns the media type, which the first character shows: no name of a column begins with a brace.
func (b *uploadBody) media() (string, error) {
	const mark = "\xef\xbb\xbf"
	for n := len(mark) + 1; ; n = b.in.Buffered() + 1 {
		_, err := b.in.Peek(n)
		head, _ := b.in.Peek(b.in.Buffered())
		text := bytes.TrimSpace(bytes.TrimPrefix(head, []byte(mark)))
		switch {
		case len(text) > 0 && text[0] == '{':
			return "application/x-ndjson", nil
		case len(text) > 0 || err == io.EOF || errors.Is(err, bufio.ErrBufferFull):
			return "text/csv", nil // of what is neither the server says what is wrong with it
		case err != nil:
			return "", err
		}
	}
}

// uploadShown is from how many bytes on it is shown how far an upload is.
const uploadShown = 1 << 20

// Read hands on a part of the file.
func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.in.Read(p) // without the lock: it may wait for standard input
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return 0, io.ErrClosedPipe
	}
	b.quiet.Reset(uploadQuiet)
	if b.sent += int64(n); b.sent < uploadShown {
		return n, err
	}
	text := "uploading: " + mebibytes(b.sent)
	if b.size > 0 {
		text += fmt.Sprintf(" of %s, %d %%", mebibytes(b.size), 100*b.sent/b.size)
	}
	b.shown.say(text)
	return n, err
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

type listsListCmd struct {
	publicFlags
	JSON bool `name:"json" help:"Print each list as it came, one a line."`
}

// Help is shown under --help.
func (listsListCmd) Help() string {
	return `The newest first. The API key needs the scope tasks:read.

Example:

    carillon lists list`
}

// Run executes the command.
func (c *listsListCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	return listed(ctx, a, t, "/v1/lists", "lists", c.JSON, []string{"id", "name", "users", "variables", "created"})
}

// listFlags say which list is meant.
type listFlags struct {
	publicFlags
	ID string `arg:"" help:"The list's id."`
}

func (f *listFlags) call(ctx context.Context, a *app, method string) ([]byte, error) {
	t, err := f.target(a)
	if err != nil {
		return nil, err
	}
	return t.call(ctx, method, "/v1/lists/"+url.PathEscape(f.ID), nil, nil)
}

type listsShowCmd struct {
	listFlags
	JSON bool `name:"json" help:"Print the list as it came."`
}

// Help is shown under --help.
func (listsShowCmd) Help() string {
	return `Shows how many users stand in a list, and which variables there are for templates. The API key needs the scope tasks:read.

Example:

    carillon lists show 7345881023471616`
}

// Run executes the command.
func (c *listsShowCmd) Run(ctx context.Context, a *app) error {
	b, err := c.call(ctx, a, http.MethodGet)
	if err != nil {
		return err
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(b))
		return nil
	}
	var l struct {
		ID        string
		Name      string
		Users     int
		Variables []string
		Created   string
		By        *actor
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	of := first(strings.Join(l.Variables, ", "), "-")
	for _, line := range pairs([][2]string{
		{"list", l.ID}, {"name", first(l.Name, "-")}, {"users", fmt.Sprint(l.Users)}, {"variables", of}, {"made", l.Created + by(l.By)},
	}) {
		a.print("%s", line)
	}
	return nil
}

type listsDeleteCmd struct{ listFlags }

// Help is shown under --help.
func (listsDeleteCmd) Help() string {
	return `Forgets a list. A task that still needs it fails. Lists are forgotten by themselves seven days after they were used last. The API key
needs the scope tasks:write.

Example:

    carillon lists delete 7345881023471616`
}

// Run executes the command.
func (c *listsDeleteCmd) Run(ctx context.Context, a *app) error {
	if _, err := c.call(ctx, a, http.MethodDelete); err != nil {
		return err
	}
	a.print("forgot list %s", c.ID)
	return nil
}
