package center

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"hash/maphash"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
)

const (
	maxUpload     = 512 << 20 // bytes of the body
	maxUploadLine = 16 << 10  // bytes of a line
	errorsShown   = 100       // bad lines that the answer names
	chunksAtOnce  = 128       // are stored in one call
	// uploadQuiet is how long an upload may bring nothing.
	uploadQuiet = time.Minute
)

// UploadList serves POST /v1/lists. What it holds in memory is 16 bytes for each user, to know those that come again, and the chunks that are not full.
func (o publicOps) UploadList(
	ctx context.Context, in publicapi.UploadListRequestObject,
) (publicapi.UploadListResponseObject, error) {
	a := callOf(ctx)
	name := ""
	if in.Params.Name != nil {
		name = *in.Params.Name
		if len(name) > task.MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, isControl) {
			return nil, &badParameter{"name", strictjson.BadFormat, "at most 200 bytes without control characters"}
		}
	}
	release, err := o.uploads.enter()
	if err != nil {
		return nil, err
	}
	defer release()
	product := a.principal.Product
	has, err := o.cfg.Tasks.Lists(ctx, product.ID, 0, task.MaxLists)
	if err != nil {
		return nil, err
	}
	if len(has) >= task.MaxLists {
		return nil, &push.Error{Kind: push.KindLimited, Code: string(codeTooManyLists), After: time.Minute, Detail: "delete lists that are not needed any more"}
	}
	id, err := o.cfg.IDs.Next(ctx)
	if err != nil {
		return nil, err
	}
	u := newUpload(o.cfg.Tasks, task.List{Product: product.ID, ID: id, Name: name, By: o.actor(a), Shards: product.Shards})
	body := io.LimitReader(&watchedBody{in.Body, http.NewResponseController(a), o.cfg.Clock.Now}, maxUpload+1)
	read := u.readNDJSON
	if a.media == mediaCSV {
		read = u.readCSV
	}
	if err := read(ctx, body); err != nil {
		return nil, err
	}
	if in.Params.Strict != nil && *in.Params.Strict && u.bad > 0 {
		return nil, push.Errorf(push.KindInvalid, string(codeListBadLines), "%d lines are wrong, the first is line %d (%s); leave strict out to pass over them",
			u.bad, u.errors[0].Line, u.errors[0].Code)
	}
	if u.list.Users == 0 {
		return nil, push.Errorf(push.KindInvalid, string(codeListMalformed), "there is no user in it")
	}
	l, err := u.finish(ctx)
	if err != nil {
		return nil, err
	}
	_ = http.NewResponseController(a).SetWriteDeadline(o.cfg.Clock.Now().Add(uploadQuiet)) // it may have taken longer than an answer is given
	shown := showList(&l)
	return uploaded{"/v1/lists/" + shown.Id, publicapi.UploadedList{
		Id: shown.Id, Name: shown.Name, Users: shown.Users, Variables: shown.Variables, Created: shown.Created, By: shown.By,
		Lines: u.lines, Duplicates: u.duplicates, BadLines: u.bad, Errors: append([]publicapi.LineError{}, u.errors...),
	}}, nil
}

// uploadsAtOnce is how many uploads one center reads at a time.
const uploadsAtOnce = 4

// gate lets so many in at a time.
type gate struct{ in atomic.Int32 }

func (g *gate) enter() (leave func(), err error) {
	if g.in.Add(1) > uploadsAtOnce {
		g.in.Add(-1)
		return nil, &push.Error{Kind: push.KindLimited, Code: string(codeTooManyRequests), After: 5 * time.Second,
			Detail: "other lists are being uploaded; wait for their answers"}
	}
	return func() { g.in.Add(-1) }, nil
}

// The media types of uploads.
const (
	mediaCSV    = "text/csv"
	mediaNDJSON = "application/x-ndjson"
)

// mediaOf returns the media type of an upload, empty if it is none that can be read.
func mediaOf(h http.Header) string {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return ""
	}
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, given := params["charset"]
	if err != nil || given && !strings.EqualFold(charset, "utf-8") || media != mediaCSV && media != mediaNDJSON {
		return ""
	}
	return media
}

// watchedBody gives each read a deadline of its own: an upload may take long, and may not stand still.
type watchedBody struct {
	io.Reader
	control *http.ResponseController
	now     func() time.Time
}

func (w *watchedBody) Read(b []byte) (int, error) {
	_ = w.control.SetReadDeadline(w.now().Add(uploadQuiet)) // where it cannot be had, the connection's own deadline counts
	return w.Reader.Read(b)
}

// upload makes a list out of lines.
type upload struct {
	store task.Store
	list  task.List
	seeds [2]maphash.Seed
	known map[[2]uint64]struct{}    // hashes of the users so far; that two of a million share 128 bits does not happen
	open  map[push.Shard]*openChunk // not stored yet
	full  []task.Chunk

	lines, duplicates, bad int
	errors                 []publicapi.LineError
}

type openChunk struct{ entries []task.Entry }

func newUpload(store task.Store, l task.List) *upload {
	l.Chunks = make(task.Progress, l.Shards)
	return &upload{store: store, list: l, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		known: make(map[[2]uint64]struct{}), open: make(map[push.Shard]*openChunk)}
}

// add adds a user, unless it is known. Values belong to the list from now on.
func (u *upload) add(ctx context.Context, user push.UserID, values []string) error {
	h := [2]uint64{maphash.String(u.seeds[0], string(user)), maphash.String(u.seeds[1], string(user))}
	if _, known := u.known[h]; known {
		u.duplicates++
		return nil
	}
	if u.list.Users == task.MaxListUsers {
		return push.Errorf(push.KindTooLarge, string(codeListTooLarge), "a list has at most %d users; upload several", task.MaxListUsers)
	}
	u.known[h] = struct{}{}
	u.list.Users++
	for i, v := range values {
		u.list.Longest[i] = max(u.list.Longest[i], written(v))
	}
	shard := push.ShardOf(user, u.list.Shards)
	c := u.open[shard]
	if c == nil {
		c = new(openChunk)
		u.open[shard] = c
	}
	c.entries = append(c.entries, task.Entry{User: user, Values: values})
	if len(c.entries) < task.ChunkMost {
		return nil
	}
	delete(u.open, shard)
	return u.put(ctx, shard, c.entries)
}

func (u *upload) put(ctx context.Context, shard push.Shard, entries []task.Entry) error {
	u.full = append(u.full, task.Chunk{Shard: shard, Number: int(u.list.Chunks[shard]), Entries: entries})
	u.list.Chunks[shard]++
	if len(u.full) < chunksAtOnce {
		return nil
	}
	return u.flush(ctx)
}

func (u *upload) flush(ctx context.Context) error {
	if len(u.full) == 0 {
		return nil
	}
	err := u.store.PutChunks(ctx, task.ListRef{Product: u.list.Product, ID: u.list.ID}, u.full)
	u.full = u.full[:0]
	return err
}

// finish stores what is left, and then the list.
func (u *upload) finish(ctx context.Context) (task.List, error) {
	for shard := range push.Shard(u.list.Shards) {
		if c := u.open[shard]; c != nil {
			if err := u.put(ctx, shard, c.entries); err != nil {
				return task.List{}, err
			}
		}
	}
	if err := u.flush(ctx); err != nil {
		return task.List{}, err
	}
	return u.store.CreateList(ctx, u.list)
}

// columns takes the names of what is told of each user, in whatever order. It returns where the user stands, and for each other column
// which variable it is.
func (u *upload) columns(names []string) (user int, err error) {
	user = slices.Index(names, userVariable)
	if user < 0 {
		return 0, push.Errorf(push.KindInvalid, string(codeListMalformed), "the first line has to name a column user")
	}
	if len(names)-1 > task.MaxVariables {
		return 0, push.Errorf(push.KindInvalid, string(codeListMalformed), "at most %d columns beside user", task.MaxVariables)
	}
	for i, name := range names {
		if i == user {
			continue
		}
		if !isVariable(name) || name == userVariable || slices.Contains(u.list.Variables, name) {
			return 0, push.Errorf(push.KindInvalid, string(codeListMalformed),
				"the name of column %d: 1 to 64 of letters, digits, '_', '-' and '.', each once", i+1)
		}
		u.list.Variables = append(u.list.Variables, name)
	}
	u.list.Longest = make([]int, len(u.list.Variables))
	return user, nil
}

// wrong notes a bad line.
func (u *upload) wrong(line int, code strictjson.Code, detail string) {
	u.bad++
	if len(u.errors) < errorsShown {
		u.errors = append(u.errors, publicapi.LineError{Line: line, Code: publicapi.FieldErrorCode(code), Detail: optString(detail)})
	}
}

// judgeUser returns what is wrong with a user and what is told of it.
func judgeUser(user string, values []string) (code strictjson.Code, detail string) {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	switch {
	case user == "":
		return strictjson.Empty, "there is no user"
	case len(user) > push.MaxUserID:
		return strictjson.TooLong, "a user has at most " + strconv.Itoa(push.MaxUserID) + " bytes"
	case !utf8.ValidString(user) || slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }):
		return strictjson.BadText, "it is not UTF-8"
	case push.UserID(user).Check() != nil:
		return strictjson.ControlCharacter, "a user has no control characters"
	case size > task.MaxVariableBytes:
		return strictjson.TooLong, "what is told of a user has at most " + strconv.Itoa(task.MaxVariableBytes) + " bytes"
	}
	return "", ""
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// broken returns the error of an upload that cannot be read on.
func broken(err error) error {
	if err == io.EOF {
		return nil
	}
	return push.Errorf(push.KindInvalid, string(codeListMalformed), "the upload broke off")
}

func tooLarge() error {
	return push.Errorf(push.KindTooLarge, string(codeRequestTooLarge), "an upload has at most %d MiB", maxUpload>>20)
}

// lines calls each with every line of a body that is not empty, without its end, and its number; a line that is too long comes as nil. What each
// gets is good until it returns.
func lines(body io.Reader, each func(number int, line []byte) error) error {
	r := bufio.NewReaderSize(body, maxUploadLine)
	total := 0
	for number := 1; ; number++ {
		line, err := r.ReadSlice('\n')
		total += len(line)
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			more, err = r.ReadSlice('\n')
			total += len(more)
		}
		if total > maxUpload {
			return tooLarge()
		}
		if err != nil && err != io.EOF {
			return broken(err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case long:
			line = nil
			fallthrough
		case len(line) > 0:
			if failed := each(number, line); failed != nil {
				return failed
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// csvAhead is how much of a CSV is read ahead of the record that is looked at. A record is held as a whole: one that is longer than that and a line may be, since
// its quotes do not close, ends the upload.
const csvAhead = 64 << 10

// readCSV reads RFC 4180. A field may hold line breaks in quotes; records are counted by the line on which they begin.
func (u *upload) readCSV(ctx context.Context, body io.Reader) error {
	counted := &countedReader{r: body, until: csvAhead}
	text := bufio.NewReaderSize(counted, csvAhead)
	if mark, err := text.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = text.Discard(3)
	}
	r := csv.NewReader(text)
	r.ReuseRecord = true
	r.FieldsPerRecord = -1
	user, columns := -1, 0
	for {
		counted.until = counted.n + csvAhead + maxUploadLine
		begun := r.InputOffset()
		record, err := r.Read()
		switch {
		case counted.n > maxUpload:
			return tooLarge()
		case errors.Is(err, errLongRecord):
			return push.Errorf(push.KindInvalid, string(codeListMalformed), "behind %d lines there is a record of more than %d bytes; do its quotes not close?",
				u.lines, maxUploadLine)
		}
		if err == io.EOF {
			if user < 0 {
				return push.Errorf(push.KindInvalid, string(codeListMalformed), "there is no line in it")
			}
			return nil
		}
		var form *csv.ParseError
		if err != nil && (!errors.As(err, &form) || user < 0) {
			return cmp.Or(formOf(form), broken(err))
		}
		if user < 0 {
			if user, err = u.columns(record); err != nil {
				return err
			}
			columns = len(record)
			continue
		}
		u.lines++
		if form != nil {
			u.wrong(form.StartLine, strictjson.BadFormat, "quotes that do not close, or stand in the middle of a field")
			continue
		}
		line, _ := r.FieldPos(0)
		if r.InputOffset()-begun > maxUploadLine {
			u.wrong(line, strictjson.TooLong, "a line has at most "+strconv.Itoa(maxUploadLine)+" bytes")
			continue
		}
		if len(record) != columns {
			u.wrong(line, strictjson.NotOneOf, "it has "+strconv.Itoa(len(record))+" fields in place of "+strconv.Itoa(columns))
			continue
		}
		if err := u.record(ctx, line, record, user); err != nil {
			return err
		}
	}
}

// formOf returns the error for a first line that is no CSV.
func formOf(form *csv.ParseError) error {
	if form == nil {
		return nil
	}
	return push.Errorf(push.KindInvalid, string(codeListMalformed), "the first line is no CSV")
}

// countedReader counts what is read, and ends it where a record is too long.
type countedReader struct {
	r     io.Reader
	n     int64
	until int64
}

var errLongRecord = errors.New("center: a record is too long")

func (c *countedReader) Read(b []byte) (int, error) {
	if c.n > c.until {
		return 0, errLongRecord
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (u *upload) record(ctx context.Context, line int, record []string, user int) error {
	name := record[user]
	var values []string
	if len(record) > 1 {
		values = make([]string, 0, len(record)-1)
		for i, v := range record {
			if i != user {
				values = append(values, strings.Clone(v))
			}
		}
	}
	if code, detail := judgeUser(name, values); code != "" {
		u.wrong(line, code, detail)
		return nil
	}
	return u.add(ctx, push.UserID(strings.Clone(name)), values)
}

// readNDJSON reads objects, one a line.
func (u *upload) readNDJSON(ctx context.Context, body io.Reader) error {
	first := true
	err := lines(body, func(number int, line []byte) error {
		u.lines++
		if line == nil {
			u.wrong(number, strictjson.TooLong, "a line has at most "+strconv.Itoa(maxUploadLine)+" bytes")
			return nil
		}
		names, texts, code, detail := jsonLine(line)
		if code == "" && first {
			if _, err := u.columns(names); err != nil {
				return err
			}
			first = false
		}
		if code != "" {
			u.wrong(number, code, detail)
			return nil
		}
		user := ""
		values := make([]string, len(u.list.Variables))
		for i, name := range names {
			if name == userVariable {
				user = texts[i]
				continue
			}
			at := slices.Index(u.list.Variables, name)
			if at < 0 {
				u.wrong(number, strictjson.UnknownMember, "the first line does not have this member")
				return nil
			}
			values[at] = texts[i]
		}
		if code, detail := judgeUser(user, values); code != "" {
			u.wrong(number, code, detail)
			return nil
		}
		return u.add(ctx, push.UserID(user), values)
	})
	if err == nil && u.lines == 0 {
		return push.Errorf(push.KindInvalid, string(codeListMalformed), "there is no line in it")
	}
	return err
}

// jsonLine reads an object of texts, numbers, true and false.
func jsonLine(line []byte) (names, texts []string, code strictjson.Code, detail string) {
	r := strictjson.NewReader(line)
	r.Members(task.MaxVariables+1, func(name string) {
		text := ""
		switch r.Type() {
		case strictjson.String:
			text, _ = r.Text(strictjson.Rule{})
		case strictjson.Number, strictjson.Bool:
			if name == userVariable {
				r.Note(strictjson.WrongType, "a user is a text")
			}
			text = string(r.Capture(r.Skip))
		default:
			r.Note(strictjson.WrongType, "a text, a number, true or false")
			r.Skip()
		}
		if slices.Contains(names, name) {
			r.Note(strictjson.DuplicateMember, "a member stands once")
		}
		names, texts = append(names, name), append(texts, text)
	})
	if err := r.End(); err != nil {
		return nil, nil, strictjson.BadFormat, "it is no JSON object in UTF-8"
	}
	if errs := r.Errors(); len(errs) > 0 {
		return nil, nil, errs[0].Code, errs[0].Detail
	}
	return names, texts, "", ""
}

// uploaded answers an upload.
type uploaded struct {
	location string
	list     publicapi.UploadedList
}

// VisitUploadListResponse writes the answer.
func (u uploaded) VisitUploadListResponse(w http.ResponseWriter) error {
	w.Header().Set("Location", u.location)
	return writeJSON(w, http.StatusCreated, u.list)
}
