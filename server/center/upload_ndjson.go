package center

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"

	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
)

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
