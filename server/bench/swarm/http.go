package swarm

import (
	"bytes"
	"errors"
	"fmt"
)

var headerEnd = []byte("\r\n\r\n")

// maxHeader is the longest header of an answer that is taken.
const maxHeader = 16 << 10

// cutHeader returns the header of an answer that b begins with, with the empty line behind it; nil if its end has not come. Any
// status but the one that is wanted is an error, which tells it and, as far as it came along, the code of the problem.
func cutHeader(b []byte, want string) ([]byte, error) {
	i := bytes.Index(b, headerEnd)
	if i < 0 {
		if len(b) > maxHeader {
			return nil, errors.New("the header of an answer has no end")
		}
		return nil, nil
	}
	header := b[:i+len(headerEnd)]
	status, _, _ := bytes.Cut(header, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 "+want)) {
		if code := problemCode(b[len(header):]); len(code) > 0 {
			return nil, fmt.Errorf("the request was answered with %.40q, %.40q", status, code)
		}
		return nil, fmt.Errorf("the request was answered with %.40q", status)
	}
	return header, nil
}

// problemCode returns the code in the body of a problem, if it is there.
func problemCode(body []byte) []byte {
	_, rest, _ := bytes.Cut(body, []byte(`"code":"`))
	code, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return nil
	}
	return code
}

// appendRequest appends the beginning of a request, up to and with the token; headers and the empty line may follow.
func appendRequest(dst []byte, method, target string, c *credentials) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, c.host...)
	dst = append(dst, "\r\nUser-Agent: "+clientName+"\r\n"...)
	if c.token != "" {
		dst = append(dst, "Authorization: Bearer "...)
		dst = append(dst, c.token...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
