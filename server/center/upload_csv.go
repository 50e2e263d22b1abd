package center

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strconv"
	"strings"

	"carillon/server/center/strictjson"
	"carillon/server/push"
)

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
