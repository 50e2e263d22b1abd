package center

import (
	"context"
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

// UploadList serves POST /v1/lists. What it holds in memory is a hash of 16 bytes for each user, to know those that come again, and the chunks that are not full.
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
